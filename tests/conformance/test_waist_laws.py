"""Laws of the waist: chunked pull-back is plain backward, for every decoder and objective, in bounded memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from tiny_parts import SPACES, SPEC, tiny_bank, tiny_decoder, tiny_formation
from torch import Tensor

from latentdc.decoders import DECODERS, FORMATIONS
from latentdc.discrepancies import DISCREPANCIES, Cosine, Mean
from latentdc.latents import decoded
from latentdc.networks import build
from latentdc.objectives import OBJECTIVES, PENALTIES, Match, Objective, Prefixes
from latentdc.recipe import build as build_recipe
from latentdc.recipe import load_recipe
from latentdc.representations import (
    REPRESENTATIONS,
    Attention,
    BatchStatistics,
    Features,
    Gradients,
    HeadVariance,
    Logits,
    rows_of,
)
from latentdc.resources import shipped
from latentdc.seeding import stream
from latentdc.types import Batch

Loss = Callable[[Batch], Tensor]


class FixedView:
    """One network in float64 and one real batch; no augmentation."""

    def __init__(self) -> None:
        self.net: Any = build("convnet", SPEC, seed=0, width=4).eval().requires_grad_(False).double()
        self.net.accuracy = 0.7  # as a queue's networks know theirs
        owner = torch.arange(3).repeat_interleave(4)
        x = torch.rand(12, 1, 8, 8, dtype=torch.float64, generator=stream(0, "waist"))
        self.real_batch = Batch(x, torch.nn.functional.one_hot(owner, 3).double(), owner)
        self.step, self.rng = 0, lambda purpose, cls=0: stream(0, purpose, cls)

    def batch(self, classes: list[int]) -> Batch:
        return self.real_batch.at(torch.isin(self.real_batch.owner, torch.tensor(classes)).nonzero().flatten())

    def augment(self, batch: Batch) -> Batch:
        return batch

    def real(self, looks: Any, classes: list[int]) -> tuple[tuple[Any, ...], ...]:
        return tuple(self._real(*look) for look in looks)

    def _real(self, see: Any, by: Any) -> tuple[Any, ...]:
        batch = self.real_batch
        owner, w = rows_of(see, batch)
        return tuple(by.summarise(points, owner, 3, w) for points in see(self.net, batch, differentiable=False))

    def begun(self, syn: Batch) -> Batch:
        return syn._replace(x=self.real_batch.x[torch.arange(len(syn.x)) % len(self.real_batch.x)])


OBJECTIVE: dict[str, Callable[[], Objective]] = {
    **{by: partial(lambda part: Match(Features(), part()), part) for by, part in DISCREPANCIES.items()},
    "attention": lambda: Match(Attention(), Mean()),
    "statistics": lambda: Match(BatchStatistics(), Mean()),
    "head-variance": lambda: Match(HeadVariance(), Mean()),
    "gradients": lambda: Match(Gradients(), Cosine()),
    "joint-gradients": lambda: Match(Gradients(scope="all"), Cosine()),
    "whole-gradients": lambda: Match(Gradients(rows="whole"), Cosine()),
    "logits": lambda: Match(Logits(), Mean()),
    "prefixes": lambda: Prefixes(Features(), Mean()),
    **PENALTIES,
}
if set(OBJECTIVES) != {"match", "prefixes"} or {look.kind for look in REPRESENTATIONS.values()} != {
    "points",
    "parameters",
}:
    raise AssertionError("give a new objective or kind of representation its losses here")


RECIPES = tuple(name for name, path in shipped("pipelines").items() if load_recipe(path).steps)


def of_recipe(name: str) -> Objective:
    """What a shipped recipe matches, with its weights, options and penalties."""
    changes = {"decoder": "pixels", "formation": None, "init": "real", "optim.lr": 0.1}
    return build_recipe(load_recipe(name, overrides=changes), SPEC).objective


def loss_of(name: str) -> Loss:
    view, objective = FixedView(), OBJECTIVE[name]() if name in OBJECTIVE else of_recipe(name)
    return lambda syn: objective(view, syn)


CASES = [
    (by, formation) for by in OBJECTIVE for formation in (None, *FORMATIONS) if by in DISCREPANCIES or not formation
]


@pytest.mark.parametrize(("by", "formation"), CASES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_chunked_equals_plain_backward(decoder: str, formation: str | None, by: str) -> None:
    module, form, loss = tiny_decoder(decoder).double(), tiny_formation(formation), loss_of(by)
    form = None if form is None else form.double()
    bank = tiny_bank(module).double()
    rows = bank.rows([2, 0, 1])
    images = module(bank.latents(rows), bank.owner[rows])
    images = images if form is None else form(images)
    source = rows.repeat_interleave(len(images) // len(rows))
    owner = bank.owner[source]
    plain_loss = loss(Batch(images, torch.nn.functional.one_hot(owner, 3).double(), owner, None, source))
    plain = dict(zip(bank.z, torch.autograd.grad(plain_loss, list(bank.z.values())), strict=True))
    for chunk in (None, 1, 4, 6):
        bank.zero_grad()
        with decoded(module, bank, rows, chunk, formation=form) as syn:
            got = loss(syn)
            got.backward()
        torch.testing.assert_close(got, plain_loss, rtol=1e-9, atol=1e-9)
        for key, gradient in plain.items():
            assert gradient.abs().max() > 0
            torch.testing.assert_close(bank.z[key].grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("decoder", ["pixels", "gan", "diffusion"])
def test_chunked_equals_plain_backward_of_every_recipe(decoder: str, recipe: str) -> None:
    test_chunked_equals_plain_backward(decoder, None, recipe)


@pytest.mark.parametrize("decoder", SPACES)
def test_chunked_equals_plain_backward_in_every_space(decoder: str) -> None:
    test_chunked_equals_plain_backward(decoder, None, "mean")


@pytest.mark.parametrize("decoder", DECODERS)
def test_norms_stay_in_eval_mode(decoder: str) -> None:
    module = tiny_decoder(decoder)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    bank = tiny_bank(module)
    with decoded(module, bank, bank.rows(), 2) as syn:
        syn.x.square().sum().backward()
    assert not any(part.training for part in module.modules())
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


class Held:
    """A tensor that autograd keeps for backward."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def saved_bytes() -> Iterator[dict[str, int]]:
    """Bytes that autograd holds at a time (``now``) and the most it ever held (``peak``)."""
    count = {"now": 0, "peak": 0}

    def release(size: int) -> None:
        count["now"] -= size

    def pack(tensor: Tensor) -> Held:
        held, size = Held(tensor), tensor.numel() * tensor.element_size()
        count["now"] += size
        count["peak"] = max(count["peak"], count["now"])
        weakref.finalize(held, release, size)
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        yield count


class Watched:
    """A decoder that records how many rows it decodes with a graph at a time."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.rows = decoder, []

    def __call__(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.rows.append(len(owner))
        return self.decoder(z, owner)


@pytest.mark.parametrize("formation", [None, *FORMATIONS])
@pytest.mark.parametrize("decoder", DECODERS)
def test_decoder_memory_is_flat_beyond_one_chunk(decoder: str, formation: str | None) -> None:
    """Counted in bytes held by autograd during the pull-back, not in seconds: the same for 8, 32 and 128 rows."""
    peaks = {}
    for num in (8, 32, 128):
        module = Watched(tiny_decoder(decoder))
        bank = tiny_bank(module.decoder, [num - 2, 1, 1])
        with saved_bytes() as count:
            with decoded(module, bank, bank.rows(), 8, formation=tiny_formation(formation)) as syn:
                syn.x.grad = torch.ones_like(syn.x)
            assert count["now"] == 0
        assert max(module.rows) <= 8
        assert sum(module.rows) == num
        peaks[num] = count["peak"]
    assert peaks[128] <= 1.1 * peaks[32]
    assert peaks[32] <= 1.1 * peaks[8]
