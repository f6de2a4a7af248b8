"""Memory: what a row takes, how many fit, and that neither latents nor steps add to what is held at a time."""

from __future__ import annotations

import logging

import pytest
import torch
from tiny_models import tiny_autoencoder, tiny_diffusion
from tiny_parts import tiny_bank, tiny_decoder
from torch import nn

from latentdc.condense import Optim, condense
from latentdc.data.augment import NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import from_arrays
from latentdc.decoders import chunks
from latentdc.decoders.chunks import LiveBytes, bytes_per_row, fitting_chunk, images_at_once
from latentdc.devices import free_bytes
from latentdc.discrepancies import Mean
from latentdc.latents import decoded
from latentdc.networks.pool import FixedPool
from latentdc.objectives import Match
from latentdc.representations import Features
from latentdc.seeding import global_seed
from latentdc.source import Minibatches

CPU = torch.device("cpu")


def saved_bytes(decoder: nn.Module) -> int:
    """Bytes that autograd holds after decoding two rows."""
    held: list[int] = []
    owner = torch.tensor([0, 1])
    z = {key: value.requires_grad_() for key, value in decoder.prior(owner, torch.Generator().manual_seed(0)).items()}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: held.append(tensor.numel() * tensor.element_size()) or tensor, lambda tensor: tensor
    ):
        decoder(z, owner)
    return sum(held)


def steps(num: int, **settings: object) -> nn.Module:
    with global_seed(0, "chunks"):
        return tiny_diffusion(steps=num, **settings).eval().requires_grad_(False)


def test_steps_hold_next_to_nothing() -> None:
    """Counted with hooks on saved tensors: a step keeps its state only, not what its network computed."""
    kept = {num: saved_bytes(steps(num)) for num in (1, 10)}
    plain = {num: saved_bytes(steps(num, recompute=False)) for num in (1, 10)}
    assert plain[10] > 8 * plain[1]
    assert kept[10] < 0.1 * plain[10]
    state = 2 * 8 * 8 * 4  # float32 of the two rows
    assert kept[10] - kept[1] <= 9 * 4 * state


def peak(decoder: nn.Module, num_rows: int, chunk: int) -> int:
    bank = tiny_bank(decoder, [num_rows - 2, 1, 1])
    with decoded(decoder, bank, bank.rows(), chunk) as syn:
        syn.x.grad = torch.ones_like(syn.x)
        live = LiveBytes()
        live.__enter__()
    live.__exit__(None, None, None)
    return live.peak


@pytest.mark.parametrize("name", ["diffusion", "autoencoder"])
def test_peak_is_flat_in_latents_and_steps(name: str) -> None:
    """All bytes alive in the pull-back, what is recomputed among them: ten steps, or a KL autoencoder."""
    decoder = steps(10) if name == "diffusion" else tiny_autoencoder("AutoencoderKL").eval().requires_grad_(False)
    few, many = peak(decoder, 4, 2), peak(decoder, 16, 2)
    grown = 12 * 8 * 8 * 4 * 4  # the twelve rows' own latents, images and gradients
    assert many - few <= grown
    if name == "diffusion":
        assert peak(decoder, 4, 2) <= 1.25 * peak(steps(2), 4, 2)
        assert peak(steps(10, recompute=False), 4, 2) > 3 * peak(decoder, 4, 2)


def test_live_bytes_by_hand() -> None:
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a[:500].view(-1)  # no memory of its own
        del a
        assert live.now == 4000
        del b
        assert live.now == 0
        c = torch.ones(100) + 1
        del c
    assert (live.now, live.peak) == (0, 4000)


def test_chunk_follows_from_free_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    decoder = tiny_decoder("diffusion")
    row = bytes_per_row(decoder, CPU)
    assert row == bytes_per_row(decoder, CPU) > 8 * 8 * 4
    for rows, chunk in ((1000, None), (100, None), (99, 64), (64, 64), (63, 32), (1, 1)):
        monkeypatch.setattr(chunks, "free_bytes", lambda device, rows=rows: 2 * rows * row)
        assert fitting_chunk(decoder, 100, CPU) == chunk
    monkeypatch.setattr(chunks, "free_bytes", lambda device: row)
    with caplog.at_level(logging.WARNING, logger="latentdc"):
        assert fitting_chunk(decoder, 100, CPU) == 1
    assert "decoding one at a time" in caplog.text
    assert fitting_chunk(decoder, 0, CPU) is None


def test_light_decoders_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "free_bytes", lambda device: 0)
    for name in ("pixels", "gan"):
        assert fitting_chunk(tiny_decoder(name), 10**9, CPU) is None


def test_the_loop_decodes_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a chunk the loop takes the one that fits; a chunk that is given stays."""
    decoder = tiny_decoder("diffusion")
    row, seen = bytes_per_row(decoder, CPU), []
    monkeypatch.setattr(chunks, "free_bytes", lambda device: 2 * 2 * row)
    store = from_arrays(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 3, list("abc"), name="black")
    pool = FixedPool("mlp", store.spec, 0, 1, width=4)
    source = Minibatches(store, UniformSampler(store, 2), pool, NoAugment(), seed=0)
    decoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[1])))
    for chunk, rows in ((None, 2), (3, 3)):
        seen.clear()
        condense(
            decoder,
            tiny_bank(decoder, [4, 1, 1]),
            Match(Features(), Mean()),
            source,
            steps=1,
            optim=Optim(lr=0.01),
            seed=0,
            chunk=chunk,
            device=CPU,
            progress=False,
        )
        assert max(seen) == rows


def test_free_bytes_is_some_memory() -> None:
    assert 0 < free_bytes(CPU) < 1 << 50


@pytest.mark.parametrize(("side", "rows"), [(28, 64), (64, 64), (128, 16), (256, 4), (1024, 1)])
def test_heavy_decoders_take_fewer_images_the_larger_they_are(side: int, rows: int) -> None:
    class Sized:
        heavy, image_shape = True, (3, side, side)

    assert images_at_once(Sized()) == rows
    Sized.heavy = False
    assert images_at_once(Sized()) == 256
