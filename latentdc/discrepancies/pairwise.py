"""Discrepancies that compare all pairs of points: maximum mean discrepancies and energy distance."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, face, hold
from latentdc.discrepancies.kernels import gaussians, mean_square_distance, square_distances, weighted_mean
from latentdc.errors import InputError


class _Pairwise(Discrepancy):
    """``E k(x, x') − 2 E k(x, y) + E k(y, y')`` per class, each mean over all pairs, a point with itself included."""

    _moves: ClassVar[bool] = True
    """Whether the kernel sees differences of points only, so that both sides may be moved together."""

    @abstractmethod
    def _kernel(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        """Values ``(c, n, m)`` of points ``(c, n, d)`` and ``(c, m, d)``."""

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points themselves, class by class, with the real-real term."""
        with torch.no_grad():
            held = hold(points, owner, num_classes, w)
            assert held.weights is not None
            scale = self.lengths(points, owner, num_classes, w) if scale is None else scale
            centred = held.values - self._centre(held.values, held.weights)
            within = self._within(centred, held.weights, scale)
            return replace(held, scale=scale, within=within)

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        classes, x, a, y, b = face(real, points, owner, w, self)
        if real.within is None:
            raise InputError(f"{type(self).__name__} was given points without their own term; summarise with its own")
        scale = None if real.scale is None else real.scale[classes]
        centre = self._centre(y, b)
        x, y = x - centre, y - centre  # distances stay, rounding shrinks
        own = self._within(x, a, scale)
        cross = weighted_mean(self._kernel(x, y, scale), a, b)
        return (own - 2 * cross + real.within[classes].to(x.dtype)).sum()

    def _within(self, x: Tensor, a: Tensor, scale: Tensor | None) -> Tensor:
        """Mean kernel between the points of one side, per class ``(c,)``."""
        return weighted_mean(self._kernel(x, x, scale), a, a)

    def _centre(self, points: Tensor, weights: Tensor) -> Tensor:
        """What is subtracted from both sides ``(c, 1, d)``."""
        centre = (weights[:, :, None] * points).sum(1, keepdim=True)
        return centre if self._moves else torch.zeros_like(centre)


@dataclass(frozen=True)
class Mmd(_Pairwise):
    """Squared maximum mean discrepancy with a multi-bandwidth Gaussian kernel.

    ``Σ_c mean k(s, s') − 2 mean k(s, t) + mean k(t, t')``, ``k(x, y) = Σ_f exp(−‖x − y‖² / (f b_c))`` for f in
    ¼, ½, 1, 2, 4: the V-statistic, since the synthetic set *is* its distribution and not a sample of one. ``b_c`` is
    the mean squared distance between real points of the class, held fixed while the synthetic ones move. Range
    [0, 10] per class; zero exactly on equal distributions. Costs O((m² + m n + n²) d) per class.

    *Reference:* Gretton et al. 2012, JMLR 13, eq. 5; Zhang et al. 2024 (M3D), arXiv 2312.15927, eq. 7.
    *Differs from the authors' code:* there ``b`` is taken anew at each step from real and synthetic points together,
    which changes the objective under the optimiser.

    Args:
        bandwidth: ``b`` of every class; None takes it from the real points.
    """

    cite: ClassVar[tuple[str, ...]] = ("gretton2012mmd", "zhang2024m3d")

    bandwidth: float | None = None

    def __post_init__(self) -> None:
        _check_bandwidth(self.bandwidth)

    def lengths(self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Tensor | None:
        """Squared length of each class ``(k,)``."""
        if self.bandwidth is None:
            return mean_square_distance(points, owner, num_classes, w)
        return points.new_full((num_classes,), self.bandwidth, dtype=torch.float64)

    def _kernel(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        if scale is None:
            raise InputError("mmd was given a summary without kernel lengths; summarise with its own")
        return gaussians(square_distances(x, y), scale.to(x.dtype))


@dataclass(frozen=True)
class Energy(_Pairwise):
    """Energy distance: ``Σ_c 2 E‖s − t‖ − E‖s − s'‖ − E‖t − t'‖``.

    The maximum mean discrepancy of the kernel ``−‖x − y‖``, as a V-statistic. It has no bandwidth and its gradient is a
    mean of unit vectors, bounded however far the points are. Range [0, ∞) in feature units; zero exactly on equal
    distributions.

    *Reference:* Székely and Rizzo 2013, J. Stat. Plan. Inference 143, eq. 2.1.

    Args:
        relative: divide by the root of the mean squared distance between real points of the class, so that classes and
            networks of any spread weigh alike; the range is then without units.
        unbiased: leave a point's distance to itself out of the means (the U-statistic). For two samples of
            distributions, drawn anew each time: a V-statistic of n points a side draws them together by a share of
            1 / n. A set that *is* its distribution is not a sample. The value may be negative.
    """

    cite: ClassVar[tuple[str, ...]] = ("szekely2013energy",)

    relative: bool = False
    unbiased: bool = False

    def lengths(self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Tensor | None:
        """Squared length of each class ``(k,)`` if distances are relative to it."""
        return mean_square_distance(points, owner, num_classes, w) if self.relative else None

    def _kernel(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        distance = torch.cdist(x, y)
        return -distance if scale is None else -distance / scale.to(x.dtype).sqrt()[:, None, None]

    def _within(self, x: Tensor, a: Tensor, scale: Tensor | None) -> Tensor:
        mean = super()._within(x, a, scale)
        if not self.unbiased:
            return mean
        others = 1 - a.square().sum(1)  # the share of pairs that are two points; of a single one there are none
        return mean / others.clamp(min=torch.finfo(x.dtype).eps)


@dataclass(frozen=True)
class Polynomial(_Pairwise):
    """Squared maximum mean discrepancy of the polynomial kernel ``k(x, y) = (⟨x, y⟩ + offset)^degree``.

    A V-statistic like ``mmd``. It compares all moments up to the degree and no others, joint ones of several
    coordinates included: of degree 1 it is ``mean``, of degree 2
    ``Σ_c ‖E ssᵀ − E ttᵀ‖²_F + 2 offset ‖E s − E t‖²``. It depends on where the origin is. Range [0, ∞), in feature
    units to the power 2 degree.

    *Reference:* Gretton et al. 2012, JMLR 13, eq. 5, with the kernel that the authors of M3D offer beside theirs
    (Zhang et al. 2024, arXiv 2312.15927), at degree 2 and offset 1.

    Args:
        degree: highest moment compared.
        offset: how much the lower moments count; 0 leaves those of the highest degree alone.

    Raises:
        InputError: a degree below 1, or an offset that is negative or not finite.
    """

    cite: ClassVar[tuple[str, ...]] = ("gretton2012mmd", "zhang2024m3d")
    _moves: ClassVar[bool] = False

    degree: int = 2
    offset: float = 1.0

    def __post_init__(self) -> None:
        if self.degree < 1:
            raise InputError(f"by.degree = {self.degree}: give at least 1")
        if not (math.isfinite(self.offset) and self.offset >= 0):
            raise InputError(f"by.offset = {self.offset}: give a finite number of at least 0")

    def _kernel(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        del scale
        return (x @ y.transpose(1, 2) + self.offset) ** self.degree


def _check_bandwidth(bandwidth: float | None) -> None:
    if bandwidth is not None and not bandwidth > 0:
        raise InputError(f"by.bandwidth = {bandwidth}: give a positive squared length, or leave it out")
