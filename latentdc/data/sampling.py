"""Samplers draw the real mini-batches a condensation step compares with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.types import Batch


class Sampler(Protocol):
    """Draws real images of some classes."""

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: Callable[[int], torch.Generator]) -> Batch:
        """``num`` images of each class (None: the sampler's own number), class after class.

        ``rng_of(cls)`` is the generator of one class, so a draw depends neither on other classes nor on their order.
        """
        ...


@dataclass(frozen=True)
class UniformSampler:
    """Distinct images, uniform within each class.

    A class with fewer images than asked gives all of them, as in the literature; statistics are per class, so unequal
    numbers do not weigh classes unequally.
    """

    cite: ClassVar[tuple[str, ...]] = ()

    store: ClassStore
    num_per_class: int = 256

    def __post_init__(self) -> None:
        if self.num_per_class < 1:
            raise InputError(f"num_per_class={self.num_per_class}: give at least 1 image per class.")

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: Callable[[int], torch.Generator]) -> Batch:
        """A batch of ``min(num, count)`` images of each class in ``classes``, in that order."""
        wanted = self.num_per_class if num is None else num
        rows = [self.store.pick(c, min(wanted, self.store.count(c)), rng_of(c)) for c in classes]
        return self.store.batch(torch.cat(rows))
