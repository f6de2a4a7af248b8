"""Matching of per-class moments: means alone, or with the variances and third central moments of each coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_means, exact_sums, must_be_sums, must_cover
from latentdc.errors import InputError


@dataclass(frozen=True)
class Mean(Discrepancy):
    """Squared distance between the class means of the two sets: its witnesses are the linear functions of the features.

    ``Σ_c ‖ (1/n_c) Σ_{x ∈ T_c} ψ(x) − (1/m_c) Σ_{s ∈ S_c} ψ(s) ‖²``, a sum over classes and over feature coordinates
    with no 1/d and no 1/k, as published: learning rates of the literature transfer, and the value grows with d. Of
    gradients ``(c, o, d)`` it is the summed squared error, as in IDC. Range [0, ∞); zero on equal class means.

    *Reference:* Zhao and Bilen 2023, arXiv 2110.04181, eq. 6.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"points", "parameters"})
    sketchable: ClassVar[bool] = True
    cite: ClassVar[tuple[str, ...]] = ("zhao2023dm",)

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums ``(k, …)`` and counts ``(k,)``; ``scale`` has no meaning here."""
        del scale
        with torch.no_grad():
            return Summary(*exact_sums(points, owner, num_classes, w))

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes of the squared difference of means, in the points' dtype."""
        return self._gaps(real, points, owner, w).square().sum()

    def _gaps(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None) -> Tensor:
        """Differences of means ``(c, …)`` of the classes present."""
        means, present = class_means(points, owner, len(real.counts), w)
        must_cover(real, present)
        return means[present] - real.mean.to(points.dtype)[present]


@dataclass(frozen=True)
class Norm(Mean):
    """Distance between the class means of the two sets, not squared: ``Σ_c ‖ m_T − m_S ‖_p``.

    Of gradients ``(c, o, d)`` it is a sum over their output units too; with p = 1 the summed absolute error. Far off it
    pulls no harder than near by, and where a class is met it has no slope: its learning rates are not ``mean``'s.
    Range [0, ∞); zero on sets of equal class means.

    *Reference:* Kim et al. 2022 (IDC), arXiv 2205.14959, the authors' code, which takes p = 1 for grey images and for
    ImageNet.

    Args:
        p: 1 for the sum of absolute differences, 2 for the Euclidean length.

    Raises:
        InputError: another p.
    """

    cite: ClassVar[tuple[str, ...]] = ("kim2022idc",)

    p: int = 2

    def __post_init__(self) -> None:
        if self.p not in (1, 2):
            raise InputError(f"by.p = {self.p}: give 1 (absolute differences) or 2 (Euclidean length)")

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, and over output units, in the points' dtype."""
        lengths: Tensor = torch.linalg.vector_norm(self._gaps(real, points, owner, w), ord=self.p, dim=-1)
        return lengths.sum()


@dataclass(frozen=True)
class Moments(Discrepancy):
    """Squared distances between class means, variances and third central moments, coordinate by coordinate.

    ``Σ_c ‖m_T − m_S‖² + variance · ‖v_T − v_S‖² + skew · ‖q_T − q_S‖²`` with ``v = E (x − m)²`` and ``q = E (x − m)³``
    of each coordinate, expectations over the points themselves (no n − 1). Range [0, ∞); with both weights 0 it is
    ``mean``. The terms are in squared, fourth and sixth powers of the feature unit: weigh them accordingly.

    Raw moments add up where central ones do not, so a summary holds sums of x, x² and x³, and central moments are
    differences of large numbers: their error is about ``1e-16 (|m| / σ)³`` of σ³. The sums are float64, so that seven
    digits are left where means are a thousand deviations. Of the synthetic points, deviations are taken first and
    nothing cancels.

    *Reference:* Zellinger et al. 2017, "Central Moment Discrepancy", arXiv 1702.08811, with K = 3.
    *Differs from it:* distances are squared, and weights take the place of powers of the range of the features.

    Args:
        variance: weight of the second term; 0 leaves it out.
        skew: weight of the third term; 0 leaves it out.

    Raises:
        InputError: a weight that is negative or not finite.
    """

    sketchable: ClassVar[bool] = True
    cite: ClassVar[tuple[str, ...]] = ("zellinger2017cmd",)

    variance: float = 1.0
    skew: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in (("variance", self.variance), ("skew", self.skew)):
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"by.{name} = {weight}: give a finite weight of at least 0; 0 leaves the term out")

    @property
    def _highest(self) -> int:
        """Highest power summed."""
        return 3 if self.skew else 2 if self.variance else 1

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums of [x, x², x³] ``(k, 3 d)``, up to the highest power needed, and counts ``(k,)``."""
        del scale
        with torch.no_grad():
            x = points.double()
            powers = (x, x * x, x * x * x)[: self._highest]
            sums, counts = zip(*(exact_sums(power, owner, num_classes, w) for power in powers), strict=True)
            return Summary(torch.cat(sums, 1), counts[0])

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        must_be_sums(real, self._highest * points.shape[1], "moments")
        num_classes = len(real.counts)
        means, present = class_means(points, owner, num_classes, w)
        must_cover(real, present)
        first, *higher = real.mean.chunk(self._highest, 1)
        gaps = [means - first.to(points.dtype)]
        centred = points - means[owner]
        if self.variance:
            theirs = higher[0] - first.square()
            ours, _ = class_means(centred.square(), owner, num_classes, w)
            gaps.append(self.variance**0.5 * (ours - theirs.to(points.dtype)))
        if self.skew:
            theirs = higher[1] - 3 * first * higher[0] + 2 * first**3
            ours, _ = class_means(centred**3, owner, num_classes, w)
            gaps.append(self.skew**0.5 * (ours - theirs.to(points.dtype)))
        return (torch.stack(gaps) * present[:, None]).square().sum()
