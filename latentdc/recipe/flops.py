"""What a run computes, counted and not timed: the same on every machine and beside any other work."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from latentdc.data.store import ClassStore
from latentdc.devices import device_of
from latentdc.networks.base import Network
from latentdc.networks.pool import Pool
from latentdc.networks.train import TrainSpec
from latentdc.networks.trained import Trainer
from latentdc.recipe.build import Built, with_start
from latentdc.recipe.estimate import missed_looks, trial, trial_sketch
from latentdc.recipe.real import make_source
from latentdc.source import Minibatches

_COUNTED_STEPS = 2


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of the convolutions and matrix products of a run, a multiplication and a sum as two.

    Of a convolution the backward pass takes twice what the forward pass took, and a gradient of a gradient as much as
    the products that it is made of: all are counted as they run. Normalisation, pooling and what is done to single
    numbers are not counted, nor are the distances of a k-means.
    """

    step: float
    """Of one step of condensation, a sampler's looks at the images spread over the steps between them."""
    networks: float
    """Of the networks that a pool trains once."""


def count_flops(built: Built, store: ClassStore, *, device: torch.device | None = None) -> Flops:
    """Count two steps, and a mini-batch of one of the trainings that a run does once; the trial leaves no trace.

    A sketch is not among what is counted: one of a few images is taken for the trial.

    Args:
        built: the parts.
        store: the real images.
        device: where the trial runs; None for the best there is.
    """
    device, source = device or device_of(), None
    if built.recipe.source.kind == "sketch":
        source, *_ = trial_sketch(built, store, device, built.recipe.source)
    source = source or make_source(built, store, progress=False)
    networks = look = 0.0
    looks = Fraction()
    if isinstance(source, Minibatches):
        source = copy.copy(source).to(device)
        source.pool, networks = _rehearsed(source.pool)
        looks = missed_looks(source.sampler, range(_COUNTED_STEPS))
        if source.sampler.period:
            with _counting() as told:
                source.view(0)
            look = told[0]
    ready = with_start(built, source, store, device=device)
    with _counting() as told:
        trial(built, ready, device, _COUNTED_STEPS)
    return Flops(told[0] / _COUNTED_STEPS + look * float(looks), networks)


def _rehearsed(pool: Pool) -> tuple[Pool, float]:
    """The pool as if its networks were trained, and what that would compute."""
    trainer: Trainer | None = getattr(pool, "trainer", None)
    if trainer is None:
        return pool, 0.0
    told = {each.name: getattr(trainer, each.name) for each in fields(trainer)}
    counting, rehearsing = _OneBatch(**told), copy.copy(pool)
    vars(rehearsing)["trainer"] = counting
    times = rehearsing.rehearse()
    vars(rehearsing)["trainer"] = trainer
    return rehearsing, times * sum(counting.counted)


@dataclass(frozen=True, eq=False)
class _OneBatch(Trainer):
    """Trains on one mini-batch, and tells what the whole training computes: every image as much, in every pass."""

    counted: list[float] = field(default_factory=list)

    def train(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        spec: TrainSpec,
        *,
        w: Tensor | None = None,
        optimiser: torch.optim.Optimizer | None = None,
        seed: int,
    ) -> None:
        """As ``Trainer.train``, cut short."""
        some = min(len(x), spec.batch_size)
        with _counting() as told:
            short, own = replace(spec, epochs=1, milestones=()), None if w is None else w[:some]
            super().train(network, x[:some], y[:some], short, w=own, optimiser=optimiser, seed=seed)
        self.counted.append(told[0] * spec.passes * len(x) / some)


@contextmanager
def _counting() -> Iterator[list[float]]:
    told = [0.0]
    with FlopCounterMode(display=False) as counter:
        yield told
    told[0] = float(counter.get_total_flops())
