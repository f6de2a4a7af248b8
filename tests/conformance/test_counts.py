"""Costs as counts, the same on every machine: forwards a step, images read, networks built, bytes of a sketch.

How often the decoder runs inside one ``decoded`` block and how much memory that takes: ``test_latents.py`` and
``test_waist_laws.py``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_parts import tiny_bank, tiny_decoder, tiny_formation
from torch import Tensor, nn

from latentdc.condense import Optim, condense
from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.decoders import FORMATIONS
from latentdc.discrepancies import DISCREPANCIES, RandomFourier
from latentdc.networks import FixedPool, FreshPool
from latentdc.networks.convnet import ConvNet
from latentdc.objectives import Match
from latentdc.portable.bank import LatentBank
from latentdc.representations import Features
from latentdc.sketch import Sketch, sketch
from latentdc.source import Minibatches, Source
from latentdc.types import Observation

STEPS = 3
COUNTS = (3, 1, 2)
ADDITIVE = [name for name, part in DISCREPANCIES.items() if part.sketchable]


class Counts:
    """Rows of every forward since ``clear``: of decoders, of networks, and of real images read."""

    def __init__(self) -> None:
        self.decoder: list[tuple[int, bool]] = []
        self.network: list[tuple[int, bool]] = []
        self.real: list[int] = []
        self.built = 0

    def clear(self) -> None:
        self.decoder, self.network, self.real, self.built = [], [], [], 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Counts of everything that runs during the test."""
    kept = Counts()
    observe, batch, build = ConvNet.observe, ClassStore.batch, ConvNet.__init__

    def counted_observe(self: ConvNet, x: Tensor) -> Observation:
        kept.network.append((len(x), torch.is_grad_enabled()))
        return observe(self, x)

    def counted_batch(self: ClassStore, indices: Tensor) -> object:
        kept.real.append(len(indices))
        return batch(self, indices)

    def counted_build(self: ConvNet, *args: object, **options: object) -> None:
        kept.built += 1
        build(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ConvNet, "observe", counted_observe)
    monkeypatch.setattr(ClassStore, "batch", counted_batch)
    monkeypatch.setattr(ConvNet, "__init__", counted_build)
    return kept


def take(store: ClassStore, by: str = "mean", see: Features | None = None, **options: object) -> Sketch:
    pool = FixedPool("convnet", store.spec, 0, 2, width=4)
    settings = {"num_pairs": 3, "batch_size": 7, "progress": False, **options}
    return sketch(store, pool, DSA(), see or Features(), DISCREPANCIES[by](), **settings)  # type: ignore[arg-type]


def run(
    source: Source, counts: Counts, by: str = "mean", *, chunk: int | None = None, formation: str | None = None
) -> LatentBank:
    """Some steps through the tiny generator; only what they cost is counted."""
    decoder = tiny_decoder("gan")

    def watch(module: nn.Module, inputs: tuple[object, Tensor], output: Tensor) -> None:
        counts.decoder.append((len(output), torch.is_grad_enabled()))

    decoder.register_forward_hook(watch)
    bank = tiny_bank(decoder, COUNTS)
    counts.clear()
    return condense(
        decoder,
        bank,
        Match(Features(), DISCREPANCIES[by]()),
        source,
        steps=STEPS,
        optim=Optim(lr=0.01),
        seed=0,
        chunk=chunk,
        formation=tiny_formation(formation),
        progress=False,
    )


@pytest.mark.parametrize("formation", [None, *FORMATIONS])
@pytest.mark.parametrize("by", ADDITIVE)
def test_a_step_from_a_sketch_is_one_decoder_and_one_network_forward(
    by: str, formation: str | None, tiny_store: ClassStore, counts: Counts
) -> None:
    source = take(tiny_store, by)
    bank = run(source, counts, by, formation=formation)
    expands = 1 if formation is None else tiny_formation(formation).expands
    assert counts.decoder == [(bank.num_rows, True)] * STEPS
    assert counts.network == [(bank.num_rows * expands, True)] * STEPS
    assert counts.real == []
    assert counts.built == 0


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_chunks_cost_a_second_decoder_forward_and_no_second_network_forward(
    chunk: int, tiny_store: ClassStore, counts: Counts
) -> None:
    bank = run(take(tiny_store), counts, chunk=chunk)
    sizes = [len(part) for part in torch.arange(bank.num_rows).split(chunk)]
    assert counts.decoder == [(size, graph) for _ in range(STEPS) for graph in (False, True) for size in sizes]
    assert counts.network == [(bank.num_rows, True)] * STEPS
    assert counts.real == []


def test_a_chunk_that_holds_all_rows_costs_one_decoder_forward(tiny_store: ClassStore, counts: Counts) -> None:
    bank = run(take(tiny_store), counts, chunk=sum(COUNTS))
    assert counts.decoder == [(bank.num_rows, True)] * STEPS


@pytest.mark.parametrize("by", DISCREPANCIES)
def test_a_step_from_mini_batches_adds_one_forward_of_real_images_without_a_graph(
    by: str, tiny_store: ClassStore, counts: Counts
) -> None:
    pool = FreshPool("convnet", tiny_store.spec, 0, width=4)
    bank = run(Minibatches(tiny_store, UniformSampler(tiny_store, 5), pool, DSA(), seed=0), counts, by)
    assert sorted(counts.network) == sorted([(15, False), (bank.num_rows, True)] * STEPS)
    assert counts.decoder == [(bank.num_rows, True)] * STEPS
    assert counts.real == [15] * STEPS
    assert counts.built == STEPS  # A fresh network each step.


def test_a_fixed_pool_builds_each_network_once(tiny_store: ClassStore, counts: Counts) -> None:
    pool = FixedPool("convnet", tiny_store.spec, 0, 2, width=4)
    run(Minibatches(tiny_store, UniformSampler(tiny_store, 5), pool, DSA(), seed=0), counts)
    assert counts.built == 2


@pytest.mark.parametrize("images", [None, 5])
def test_a_sketch_sees_each_image_once_a_pair(images: int | None, tiny_store: ClassStore, counts: Counts) -> None:
    source = take(tiny_store, images_per_pair=images)
    per_class = 12 if images is None else images
    # Batches of 7, the last one of a pair filled up to that.
    assert counts.network == [(7, False)] * (source.num_pairs * math.ceil(3 * per_class / 7))
    assert bool((source.counts == per_class).all())
    assert counts.built == 2
    assert counts.decoder == []


LOOKS = {
    "last": (Features(), [4]),
    "all": (Features(layer="all"), [64, 16, 4]),
    "projected": (Features(project=3), [3]),
}
"""Features of the network of width 4 on 8 pixels, and the numbers in each layer."""


def header_bytes(file: Path) -> int:
    """Bytes of a safetensors file before its numbers."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        assert "__metadata__" in json.loads(stream.read(size))
    return 8 + size


@pytest.mark.parametrize("look", LOOKS)
def test_bytes_of_a_sketch_of_means(look: str, tiny_store: ClassStore, tmp_path: Path) -> None:
    see, widths = LOOKS[look]
    source = take(tiny_store, see=see)
    pairs, k, d = 3, 3, sum(widths)
    assert source.num_bytes == pairs * k * (d + 1) * 8
    file = tmp_path / "real.safetensors"
    source.save(file)
    assert file.stat().st_size == source.num_bytes + header_bytes(file)


def test_bytes_of_a_sketch_of_random_fourier_features(tiny_store: ClassStore) -> None:
    by = RandomFourier(num=20)
    pool = FixedPool("convnet", tiny_store.spec, 0, 2, width=4)
    source = sketch(tiny_store, pool, DSA(), Features(), by, num_pairs=3, progress=False)
    assert source.num_bytes == 3 * 3 * (2 * 20 + 1 + 1) * 8  # Sums of cos and sin, a count and a kernel length.


def test_bytes_of_a_sketch_do_not_depend_on_the_number_of_real_images(tiny_store: ClassStore) -> None:
    half = tiny_store.limit(6)
    assert len(half) < len(tiny_store)
    assert take(half).num_bytes == take(tiny_store).num_bytes
