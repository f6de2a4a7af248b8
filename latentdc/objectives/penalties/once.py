"""Looking once at the synthetic images, and at the real ones, where several parts of an objective ask to see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentdc.discrepancies import Summary
from latentdc.networks.looked import Latest, Looked
from latentdc.source import Look, View
from latentdc.types import Batch, Net


def _reached(x: Tensor) -> bool:
    """Whether gradients reach it. Real images are too many to keep what was made of them."""
    return x.requires_grad and torch.is_grad_enabled()


class _LookedWithGradients(Looked):
    """A network whose last look at synthetic images is kept."""

    def shares(self, x: Tensor) -> bool:
        """Whether gradients reach the images."""
        return _reached(x)


class Once:
    """A view for the length of one loss: one augmented set, one pass of the network, one graph for all parts.

    Args:
        view: the step's view.
        looks: what the parts will ask of its real side: all of it is looked at when the first one asks.
    """

    def __init__(self, view: View, looks: Sequence[Look]) -> None:
        self.step, self.looks = view.step, tuple(looks)
        self.net: Net = _LookedWithGradients(view.net)
        self.rng, self.batch = view.rng, view.batch
        self._real, self._known = view.real, dict[tuple[int, ...], dict[tuple[int, int], tuple[Summary, ...]]]()
        self._augment, self._augmented = view.augment, Latest[Tensor]()
        if (begun := getattr(view, "begun", None)) is not None:
            self.begun: Callable[[Batch], Batch] = begun

    def augment(self, batch: Batch) -> Batch:
        """The batch under the step's draw."""
        if not _reached(batch.x):
            return self._augment(batch)
        return batch._replace(x=self._augmented(batch.x, lambda: self._augment(batch).x))

    def real(self, looks: Sequence[Look], classes: Sequence[int]) -> tuple[tuple[Summary, ...], ...]:
        """The view's summaries of the real set."""
        wanted, announced = _parts_of(looks), _parts_of(self.looks)
        if not set(wanted) <= set(announced):
            return self._real(looks, classes)
        key = tuple(classes)
        if key not in self._known:
            self._known[key] = dict(zip(announced, self._real(self.looks, classes), strict=True))
        return tuple(self._known[key][each] for each in wanted)


def _parts_of(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Which parts they are: the very same ones, for others may be equal and yet show another thing."""
    return [(id(see), id(by)) for see, by in looks]
