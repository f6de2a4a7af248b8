"""A network that looks once at images which several parts ask it about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from latentdc.types import Net, Observation

R = TypeVar("R")


class Latest(Generic[R]):
    """What was last made of a tensor; asked for the same one, it is not made again."""

    def __init__(self) -> None:
        self.of: Tensor | None = None
        self.made: list[R] = []

    def __call__(self, x: Tensor, make: Callable[[], R]) -> R:
        """``make()``, or what it gave for this very tensor."""
        if self.of is not x:
            self.of, self.made = x, [make()]
        return self.made[0]


class Looked:
    """A network as the loop sees it (see ``latentdc.types.Net``), whose last look is kept as long as this is.

    Only looks of one kind are shared, those with gradients or those without: see ``shares``.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        """What it stands for, for those who need more than a look."""
        self._seen: Latest[Observation] = Latest()

    def shares(self, x: Tensor) -> bool:
        """Whether a look at these images is kept for others: one without gradients."""
        del x
        return not torch.is_grad_enabled()

    def observe(self, x: Tensor) -> Observation:
        """What the network shows of the images, one pass and one graph for all who ask."""
        return self._seen(x, lambda: self.net.observe(x)) if self.shares(x) else self.net.observe(x)
