"""Looking once at the synthetic images where several parts of an objective ask to see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from latentdc.source import View
from latentdc.types import Batch, Net, Observation

R = TypeVar("R")


class _Latest(Generic[R]):
    """What was last made of a tensor that gradients reach; asked for the same one, it is not made again."""

    def __init__(self) -> None:
        self.of: Tensor | None = None
        self.made: list[R] = []

    def __call__(self, x: Tensor, make: Callable[[], R]) -> R:
        if not (x.requires_grad and torch.is_grad_enabled()):  # real images: too many to keep what was made of them
            return make()
        if self.of is not x:
            self.of, self.made = x, [make()]
        return self.made[0]


class _Looked:
    """A network that looks at the same synthetic images once; see ``latentdc.types.Net``.

    ``net`` is what it stands for, for those who need more than a look.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self._seen: _Latest[Observation] = _Latest()

    def observe(self, x: Tensor) -> Observation:
        """What the network shows of the images, their graph shared by all who ask."""
        return self._seen(x, lambda: self.net.observe(x))


class Once:
    """A view for the length of one loss: one augmented set, one pass of the network, one graph for all parts.

    Args:
        view: the step's view; its real side stays as it is.
    """

    def __init__(self, view: View) -> None:
        self.step = view.step
        self.net: Net = _Looked(view.net)
        self.rng, self.real, self.batch = view.rng, view.real, view.batch
        self._augment, self._augmented = view.augment, _Latest[Tensor]()
        if (begun := getattr(view, "begun", None)) is not None:
            self.begun: Callable[[Batch], Batch] = begun

    def augment(self, batch: Batch) -> Batch:
        """The batch under the step's draw."""
        return batch._replace(x=self._augmented(batch.x, lambda: self._augment(batch).x))
