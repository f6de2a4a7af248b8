"""What a run computes, counted and not timed: the same on every machine and beside any other work."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentdc.condense import condense
from latentdc.data.store import ClassStore
from latentdc.devices import device_of
from latentdc.initialise import initialise
from latentdc.labels import LearnedLabels, begun
from latentdc.latents import learns
from latentdc.portable.bank import LatentBank
from latentdc.recipe.build import Built, with_start
from latentdc.recipe.checks import learns_labels
from latentdc.recipe.estimate import trial_sketch
from latentdc.recipe.real import make_source
from latentdc.source import Minibatches

_COUNTED_STEPS = 2


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of the convolutions and matrix products of a run, a multiplication and a sum as two.

    Of a convolution the backward pass takes twice what the forward pass took, and a gradient of a gradient as much as
    the products that it is made of: all are counted as they run. Normalisation, pooling and what is done to single
    numbers are not counted.
    """

    step: float
    """Of one step of condensation, a sampler's looks at the images spread over the steps between them."""
    networks: float
    """Of the networks that a pool trains once."""


def count_flops(built: Built, store: ClassStore, *, device: torch.device | None = None) -> Flops:
    """Count two steps, and one of the trainings that a run does once; the trial leaves no trace.

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
    if isinstance(source, Minibatches):
        source.to(device)
        with _counting() as told:
            times = source.pool.rehearse()
        networks = times * told[0]
        if source.sampler.period:
            with _counting() as told:
                source.view(0)
            look = told[0] / source.sampler.period
    ready = with_start(built, source, store, device=device)
    bank = initialise("prior", built.decoder, built.counts, seed=built.recipe.seed)
    assert isinstance(bank, LatentBank)
    if learns_labels(built.recipe):
        bank = begun(LearnedLabels(), bank, built.decoder, built.formation, None)
    with _counting() as told:
        condense(
            copy.deepcopy(built.decoder) if learns(built.decoder) else built.decoder,
            bank,
            built.objective,
            ready,
            steps=_COUNTED_STEPS,
            optim=replace(built.recipe.optim, schedule="constant"),
            seed=built.recipe.seed,
            chunk=built.recipe.chunk,
            device=device,
            precision=built.recipe.precision,
            formation=copy.deepcopy(built.formation),
            progress=False,
        )
    return Flops(told[0] / _COUNTED_STEPS + look, networks)


@contextmanager
def _counting() -> Iterator[list[float]]:
    told = [0.0]
    with FlopCounterMode(display=False) as counter:
        yield told
    told[0] = float(counter.get_total_flops())
