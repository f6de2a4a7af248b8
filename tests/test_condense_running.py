"""How a run is computed: precision, compilation, device, and several runs in one Python process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from latentdc.condense import Optim, condense
from latentdc.data.augment import DSA, NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Mean
from latentdc.errors import InputError
from latentdc.networks import FixedPool, FreshPool
from latentdc.objectives import Match
from latentdc.portable.bank import LatentBank
from latentdc.portable.gan import GanDecoder
from latentdc.portable.pixels import PixelsDecoder
from latentdc.representations import Features
from latentdc.sketch import sketch
from latentdc.source import Minibatches, Source

SEE, BY = Features(), Mean()


def minibatches(store: ClassStore) -> Source:
    return Minibatches(
        store, UniformSampler(store, 6), FreshPool("convnet", store.spec, 1, width=8), NoAugment(), seed=1
    )


def sketched(store: ClassStore) -> Source:
    return sketch(store, FixedPool("convnet", store.spec, 1, 2, width=8), DSA(), SEE, BY, seed=1, progress=False)


def run(store: ClassStore, source: Source, *, steps: int = 4, **how: object) -> torch.Tensor:
    spec = store.spec
    rng = torch.Generator().manual_seed(0)
    bank = LatentBank.of({"x": torch.randn(2 * spec.num_classes, *spec.image_shape, generator=rng)}, [2] * 3)
    decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)
    optim = Optim(kind="sgd", lr=0.1, momentum=0.5)
    condense(decoder, bank, Match(SEE, BY), source, steps=steps, optim=optim, seed=1, progress=False, **how)
    return bank.z["x"].detach().clone()


def test_runs_of_different_precision_share_a_process(tiny_store: ClassStore) -> None:
    source = sketched(tiny_store)
    single, half, again = (run(tiny_store, source, precision=p) for p in ("fp32", "bf16", "fp32"))
    assert torch.equal(single, again)
    assert not torch.equal(single, half)
    torch.testing.assert_close(single, half, rtol=0.1, atol=0.05)
    with pytest.raises(InputError, match='precision = "fp16": no such precision'):
        run(tiny_store, source, precision="fp16")


@pytest.mark.slow
@pytest.mark.parametrize("make", [minibatches, sketched], ids=["minibatches", "sketch"])
def test_compiled_steps_are_the_same_steps(
    make: object, tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many networks, one compilation for the real images, one for the synthetic ones, one for decoding them."""
    plain = run(tiny_store, make(tiny_store), steps=10)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(run(tiny_store, make(tiny_store), steps=10, compile=True), plain, rtol=1e-4, atol=1e-5)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ImportError, match="no-such-compiler"):
        run(tiny_store, make(tiny_store), compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 4])
def test_a_compiled_decoder_pulls_back_the_same_gradient(chunk: int | None, tiny_store: ClassStore) -> None:
    spec = tiny_store.spec
    decoder = GanDecoder(spec.image_shape, spec.num_classes, 4, (8, 4), 4, mapping=1, space="w")
    start = decoder.prior(torch.arange(6) // 2, torch.Generator().manual_seed(0))

    def latents(compile: bool) -> torch.Tensor:
        bank = LatentBank.of({name: value.clone() for name, value in start.items()}, [2] * 3)
        optim, how = Optim(kind="sgd", lr=0.1, momentum=0.5), {"compile": compile, "chunk": chunk}
        condense(
            decoder, bank, Match(SEE, BY), sketched(tiny_store), steps=5, optim=optim, seed=1, progress=False, **how
        )
        return bank.z["w"].detach().clone()

    torch._dynamo.reset()
    plain = latents(False)
    assert not torch.equal(plain, start["w"])
    torch.testing.assert_close(latents(True), plain, rtol=1e-4, atol=1e-5)


def test_the_accelerator_of_a_user_keeps_its_word(tiny_store: ClassStore) -> None:
    source, cpu = sketched(tiny_store), torch.device("cpu")
    mine: Any = SimpleNamespace(
        mixed_precision="bf16", device=cpu, num_processes=1, process_index=0, is_main_process=True
    )
    half = run(tiny_store, source, accelerator=mine)
    assert torch.equal(half, run(tiny_store, source, precision="bf16"))
    assert not torch.equal(half, run(tiny_store, source, accelerator=mine, precision="fp32"))
