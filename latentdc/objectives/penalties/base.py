"""What penalties have in common, the sum they end in, and how they come by the real points themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from latentdc.discrepancies import Discrepancy, Summary
from latentdc.discrepancies.base import hold, must_cover
from latentdc.errors import InputError
from latentdc.objectives.base import Objective
from latentdc.objectives.penalties.once import Once
from latentdc.source import Look, View
from latentdc.types import Batch, Part


class Penalty(Objective):
    """What is asked of the synthetic images besides the match: an objective with a weight of its own.

    Args:
        weight: of this term beside the match, whose weight is 1.

    Raises:
        InputError: a weight that is not positive and finite.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(f"weight = {weight}: give a positive, finite number, or leave the penalty out.")
        self.weight = weight


class Penalised(Objective):
    """``objective + Σ penalties``; those that look at points share a pass over either side's images.

    Args:
        objective: the match.
        penalties: objectives, weighted by themselves.
    """

    def __init__(self, objective: Objective, penalties: Sequence[Objective]) -> None:
        super().__init__()
        parts = (objective, *penalties)
        self.parts = nn.ModuleList(parts)
        self.scope = "all" if any(part.scope == "all" for part in parts) else "class"
        self.needs = frozenset[Part]().union(*(part.needs for part in parts))
        self.needs_start = any(part.needs_start for part in parts)
        self.needs_images = any(part.needs_images for part in parts)
        self.orders = any(part.orders for part in parts)

    @property
    def looks(self) -> tuple[Look, ...]:
        """Those of all parts."""
        parts = cast("Sequence[Objective]", self.parts)
        return tuple(look for part in parts for look in part.looks)

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Sum over the parts."""
        view = Once(view, self.looks)
        return torch.stack([part(view, syn) for part in self.parts]).sum()


class KeptPoints(Discrepancy):
    """The half of a discrepancy that keeps the real points as they are: ``(k, n, d)``, padded with weightless zeros.

    A term between the two sets of points that is written as one comes by the real side as a match does: through the
    view, seen once under its network and augmentation, in parts that fit the memory.
    """

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points, class by class; ``scale`` has no meaning here."""
        del scale
        return hold(points, owner, num_classes, w)


def kept(real: Summary, classes: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Real points ``(c, n, d)`` of some classes and their weights ``(c, n)``, each class summing to one, as ``like``.

    Raises:
        InputError: sums, in place of points, or a class without real points.
    """
    present = torch.zeros_like(real.counts, dtype=torch.bool)
    present[classes] = True
    must_cover(real, present)
    if real.weights is None:
        raise InputError("this term needs the real points themselves and was given sums; summarise with its own")
    return real.values[classes].to(like), real.weights[classes].to(like)
