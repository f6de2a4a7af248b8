"""Distances between projections on lines, averaged over directions: sliced Wasserstein-2 and sliced energy distance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, face, hold
from latentdc.discrepancies.directions import unit_vectors
from latentdc.errors import InputError, unknown

Metric = Literal["wasserstein", "energy"]


@dataclass(frozen=True)
class Sliced(Discrepancy):
    """Mean over fixed directions θ of a distance between the points' projections ⟨θ, x⟩, exact on each line.

    - ``wasserstein``: ``Σ_c mean_θ ∫₀¹ (F_S⁻¹(u) − F_T⁻¹(u))² du``, the squared distance of quantile functions, which
      is W₂² on a line. Unequal numbers and weights of points are blocks of unequal length.
    - ``energy``: ``Σ_c c_d mean_θ 2 E|s − t| − E|s − s'| − E|t − t'|`` with ``c_d = √π Γ((d+1)/2) / Γ(d/2)``, whose
      expectation over directions is the energy distance.

    Range [0, ∞), in squared feature units or feature units. It is blind to differences that no chosen direction sees.
    Real points are projected and sorted once, in ``summarise``; a call costs O(num (m d + m log n)) per class.

    *Reference:* Bonneel et al. 2015, J. Math. Imaging Vis. 51, for ``wasserstein``; Hertrich et al. 2024, arXiv
    2305.11463, for ``energy`` and its c_d.

    Args:
        metric: ``"wasserstein"`` or ``"energy"``.
        num: number of directions.
        seed: of the directions.

    Raises:
        InputError: an unknown metric, or no direction.
    """

    cite: ClassVar[tuple[str, ...]] = ("bonneel2015sliced", "hertrich2024sliced")

    metric: Metric = "wasserstein"
    num: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in get_args(Metric):
            raise InputError(f"by.metric = {unknown('metric', str(self.metric), get_args(Metric))}")
        if self.num < 1:
            raise InputError(f"by.num = {self.num}: give at least 1 direction")

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points themselves and their sorted projections; ``scale`` has no meaning here."""
        del scale
        with torch.no_grad():
            held = hold(points, owner, num_classes, w)
            assert held.weights is not None
            return replace(held, lines=torch.stack(self._lines(held.values, held.weights)))

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        classes, syn, a, _, _ = face(real, points, owner, w, self)
        if real.lines is None or real.lines.shape[2] != self.num:
            raise InputError("sliced was given the summary of another discrepancy, or of other options")
        x, a = self._lines(syn, a)
        t, b = real.lines[:, classes]
        if self.metric == "wasserstein":
            value = _wasserstein(x, a, t, b)
        else:
            dim = points.shape[1]
            share = math.sqrt(math.pi) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
            value = share * (2 * _across(x, a, t, b) - _within(x, a) - _within(t, b))
        return value.mean(1).sum().to(points.dtype)

    def _lines(self, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sorted projections of points ``(c, n, d)`` and the weight of each: both ``(c, num, n)``, float64."""
        directions = unit_vectors(self.seed, points.shape[2], self.num, points.dtype, points.device)
        # Sums over a line cancel; they are few, and so taken in float64.
        sorted_, order = (points @ directions).transpose(1, 2).double().sort(dim=2, stable=True)
        return sorted_, weights.double()[:, None, :].expand_as(sorted_).gather(2, order)


def _from_zero(values: Tensor) -> Tensor:
    """Running sums along the last axis, with the empty one before them."""
    return torch.nn.functional.pad(values.cumsum(2), (1, 0))


def _wasserstein(x: Tensor, a: Tensor, t: Tensor, b: Tensor) -> Tensor:
    """``∫ (F_x⁻¹ − F_t⁻¹)²`` of sorted x with weights a ``(c, p, m)`` and t with b ``(c, p, n)``, as ``(c, p)``.

    ``Σ_i a_i x_i² − 2 x_i ∫ F_t⁻¹ over block i + ∫ (F_t⁻¹)²``, block i being the levels that point i takes up.
    """
    levels, mass, moment = _from_zero(a), _from_zero(b), _from_zero(b * t)
    # The real point on which each level falls, and the integral of the quantile function up to that level.
    place = torch.searchsorted(mass[..., 1:].contiguous(), levels.detach()).clamp(max=t.shape[2] - 1)
    integral = moment.gather(2, place) + (levels - mass.gather(2, place)) * t.gather(2, place)
    return (a * x.square() - 2 * x * integral.diff(dim=2)).sum(2) + (b * t.square()).sum(2)


def _across(x: Tensor, a: Tensor, t: Tensor, b: Tensor) -> Tensor:
    """``E|x − t|`` on each line ``(c, p)``: by rank and running sum rather than by pair."""
    mass, moment, at = _from_zero(b), _from_zero(b * t), x.detach().contiguous()
    below, upto = (torch.searchsorted(t.contiguous(), at, right=right) for right in (False, True))
    balance = mass.gather(2, below) + mass.gather(2, upto) - 1  # weight below less weight above
    reach = moment[..., -1:] - moment.gather(2, below) - moment.gather(2, upto)
    return (a * (x * balance + reach)).sum(2)


def _within(x: Tensor, a: Tensor) -> Tensor:
    """``E|x − x'|`` on each line ``(c, p)``."""
    mass = _from_zero(a)
    return 2 * (a * x * (mass[..., 1:] + mass[..., :-1] - 1)).sum(2)
