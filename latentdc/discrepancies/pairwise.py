"""Discrepancies that compare all pairs of points: maximum mean discrepancy and energy distance."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_sums, group, must_cover
from latentdc.discrepancies.kernels import gaussians, mean_square_distance, square_distances, weighted_mean
from latentdc.errors import InputError


class _Pairwise(Discrepancy):
    """``E k(x, x') − 2 E k(x, y) + E k(y, y')`` per class, each mean over all pairs, a point with itself included."""

    sketchable: ClassVar[bool] = False

    @abstractmethod
    def _kernel(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        """Values ``(c, n, m)`` of points ``(c, n, d)`` and ``(c, m, d)``."""

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points themselves, class by class, with the real-real term."""
        with torch.no_grad():
            points = points.detach()
            classes = torch.arange(num_classes, device=owner.device)
            values, weights = group(points, owner, classes, w)
            _, counts = class_sums(points.new_empty(len(points), 0, dtype=torch.float64), owner, num_classes, w)
            scale = self.lengths(points, owner, num_classes, w) if scale is None else scale
            centred = values - (weights[:, :, None] * values).sum(1, keepdim=True)
            within = weighted_mean(self._kernel(centred, centred, scale), weights, weights)
            return Summary(values, counts, weights, scale, within)

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        if real.weights is None or real.within is None:
            raise InputError(f"{type(self).__name__} was given the sums of another discrepancy; summarise with its own")
        classes = torch.unique(owner)
        present = torch.zeros_like(real.counts, dtype=torch.bool)
        present[classes] = True
        must_cover(real, present)
        x, a = group(points, owner, classes, w)
        y, b = real.values[classes].to(x.dtype), real.weights[classes].to(x.dtype)
        scale = None if real.scale is None else real.scale[classes]
        centre = (b[:, :, None] * y).sum(1, keepdim=True)
        x, y = x - centre, y - centre  # distances stay, rounding shrinks
        own = weighted_mean(self._kernel(x, x, scale), a, a)
        cross = weighted_mean(self._kernel(x, y, scale), a, b)
        return (own - 2 * cross + real.within[classes].to(x.dtype)).sum()


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
    """

    cite: ClassVar[tuple[str, ...]] = ("szekely2013energy",)

    def _kernel(self, x: Tensor, y: Tensor, scale: Tensor | None) -> Tensor:
        del scale
        return -torch.cdist(x, y)


def _check_bandwidth(bandwidth: float | None) -> None:
    if bandwidth is not None and not bandwidth > 0:
        raise InputError(f"by.bandwidth = {bandwidth}: give a positive squared length, or leave it out")
