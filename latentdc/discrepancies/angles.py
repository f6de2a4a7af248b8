"""Matching of directions: the angle between the class means of the two sets, whatever their lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_means, exact_sums, must_cover
from latentdc.errors import InputError


@dataclass(frozen=True)
class Cosine(Discrepancy):
    """One less the cosine between class means, summed over classes and, of gradients, over output units.

    ``Σ_c Σ_o 1 − ⟨a_co, b_co⟩ / (‖a_co‖ ‖b_co‖ + eps)`` with a the real and b the synthetic mean. Gradients
    ``(c, o, d)`` have a vector for each of a layer's o output units, points ``(n, d)`` a single one. Sums over output
    units and layers are not averaged, as published: the value, and with it the learning rate, grows with the width.
    Range [0, 2] a vector; ``eps / ‖a‖²`` on sets of equal means, and 1 where one of the two vectors is zero.

    Args:
        eps: added to the product of lengths. It is not negligible: where vectors are short, their angle counts less.

    Raises:
        InputError: an ``eps`` that is not positive.

    *Reference:* Zhao, Mopuri and Bilen 2021, "Dataset Condensation with Gradient Matching", arXiv 2006.05929, eq. 10;
    ``eps`` as in the authors' code.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"points", "parameters"})
    sketchable: ClassVar[bool] = True
    cite: ClassVar[tuple[str, ...]] = ("zhao2021dc",)

    eps: float = 1e-6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise InputError(f"by.eps = {self.eps}: give a positive, finite number")

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums ``(k, …)`` and counts ``(k,)``; ``scale`` has no meaning here."""
        del scale
        with torch.no_grad():
            return Summary(*exact_sums(points, owner, num_classes, w))

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, and over output units, in the points' dtype."""
        means, present = class_means(points, owner, len(real.counts), w)
        must_cover(real, present)
        ours, theirs = means[present], real.mean.to(points.dtype)[present]
        lengths = torch.linalg.vector_norm(ours, dim=-1) * torch.linalg.vector_norm(theirs, dim=-1)
        gaps: Tensor = 1 - (ours * theirs).sum(-1) / (lengths + self.eps)  # (c,) or (c, o)
        return gaps.sum()
