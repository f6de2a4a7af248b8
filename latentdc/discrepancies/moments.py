"""Matching of per-class means: the discrepancy whose witnesses are the linear functions of the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_means, class_sums, must_cover


@dataclass(frozen=True)
class Mean(Discrepancy):
    """Squared distance between the class means of the two sets.

    ``Σ_c ‖ (1/n_c) Σ_{x ∈ T_c} ψ(x) − (1/m_c) Σ_{s ∈ S_c} ψ(s) ‖²``, a sum over classes and over feature coordinates
    with no 1/d and no 1/k, as published: learning rates of the literature transfer, and the value grows with d.
    Range [0, ∞); zero on sets of equal class means.

    *Reference:* Zhao and Bilen 2023, arXiv 2110.04181, eq. 6.
    """

    sketchable: ClassVar[bool] = True
    cite: ClassVar[tuple[str, ...]] = ("zhao2023dm",)

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums ``(k, d)`` and counts ``(k,)``; ``scale`` has no meaning here."""
        del scale
        with torch.no_grad():
            return Summary(*class_sums(points.double(), owner, num_classes, w))

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes of the squared difference of means, in the points' dtype."""
        means, present = class_means(points, owner, len(real.counts), w)
        must_cover(real, present)
        gap = (means - real.mean.to(points.dtype)) * present[:, None]
        return gap.square().sum()
