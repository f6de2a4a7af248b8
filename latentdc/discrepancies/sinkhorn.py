"""Optimal transport between the two sets, debiased, at any blur from none (Wasserstein) to all (means, energy)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, face, hold
from latentdc.discrepancies.kernels import mean_square_distance, square_distances, weighted_mean
from latentdc.discrepancies.transport import exact_plan
from latentdc.errors import InputError

Power = Literal[1, 2]
_ROUNDS = 1000
_NEAR = 0.01
"""Mass a marginal may be missed by before ε is halved."""
_RIDGE = 1e-14


@dataclass(frozen=True)
class Sinkhorn(Discrepancy):
    """Sinkhorn divergence ``Σ_c OT_ε(S, T) − ½ OT_ε(S, S) − ½ OT_ε(T, T)``, with ε relative to the real points.

    ``OT_ε(S, T) = min_π Σ_ij π_ij C(s_i, t_j) + ε KL(π ‖ a ⊗ b)`` over the plans π of marginals a and b, with
    ``C = ½‖s − t‖²`` (p = 2) or ``‖s − t‖`` (p = 1), ``ε = (blur · r_c)^p`` and ``r_c`` the root mean square distance
    between real points of the class, held fixed. Range [0, ∞), zero on equal distributions. Between its ends it
    interpolates:

    - ``blur = 0``: exact transport, ``½ W₂²`` (p = 2) or ``W₁`` (p = 1), for any numbers and weights of points;
    - ``blur = inf``: ``½‖E s − E t‖²``, half of ``mean`` (p = 2), or half of ``energy`` (p = 1). A recipe refuses
      infinity; there a large number such as 1e6 gives the same to six digits.

    Potentials are found in float64 in the log domain, from a wide ε halved down to the one asked for, until the
    marginals of the plan are met to ``tolerance``; the gradient is that of the optimum (envelope theorem), to first
    order in the tolerance, and the value to second order. Costs O(rounds (m² n + m³ + n²)) per class, in some ten
    rounds at a blur of 0.1 and a hundred at 0.001.

    *Reference:* Feydy et al. 2019, arXiv 1810.08278, eqs. 1 and 3.

    Args:
        blur: length below which differences are blurred, in units of r_c.
        p: 2 for half the squared distance as cost, 1 for the distance.
        tolerance: total mass by which a marginal may be missed.

    Raises:
        InputError: an option out of range; in a call, potentials that do not settle in 1,000 rounds.
    """

    cite: ClassVar[tuple[str, ...]] = ("feydy2019sinkhorn",)

    blur: float = 0.1
    p: Power = 2
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not self.blur >= 0:
            raise InputError(f"by.blur = {self.blur}: give 0 (exact transport) or a positive relative length")
        if self.p not in get_args(Power):
            raise InputError(f"by.p = {self.p}: give 1 (cost ‖x − y‖) or 2 (cost ½‖x − y‖²)")
        if not 0 < self.tolerance < 1:
            raise InputError(f"by.tolerance = {self.tolerance}: give a share of the mass between 0 and 1")

    def lengths(self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Tensor | None:
        """Squared length ``r_c²`` of each class ``(k,)``."""
        return mean_square_distance(points, owner, num_classes, w)

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points themselves, their lengths and ``OT_ε(T, T)``."""
        with torch.no_grad():
            held = hold(points, owner, num_classes, w)
            assert held.weights is not None
            scale = mean_square_distance(points, owner, num_classes, w) if scale is None else scale
            some, within = held.counts > 0, torch.zeros_like(held.counts)
            y, b = held.values[some], held.weights[some]
            within[some] = self._within(y - _centre(y, b), _measure(b), self._epsilon(scale[some]))
            return replace(held, scale=scale, within=within)

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        classes, x, a, y, b = face(real, points, owner, w, self)
        if real.scale is None or real.within is None:
            raise InputError("sinkhorn was given the summary of another discrepancy; summarise with its own")
        epsilon, centre = self._epsilon(real.scale[classes]), _centre(y, b)
        x, y, a, b = x - centre, y - centre, _measure(a), _measure(b)  # distances stay, rounding shrinks
        cost = self._cost(x, y)
        if self.blur == 0:
            across = (_exact_plans(cost, a, b) * cost).sum((1, 2))
        elif self.blur == math.inf:
            across = weighted_mean(cost, a, b)
        else:
            across = _dual(cost, self._potentials(cost, a, b, epsilon), a, b, epsilon)
        within = self._within(x, a, epsilon) + real.within[classes]
        return (across - within / 2).sum().to(points.dtype)

    def _epsilon(self, scale: Tensor) -> Tensor:
        return (self.blur * scale.sqrt()) ** self.p

    def _cost(self, x: Tensor, y: Tensor) -> Tensor:
        """``(c, m, n)``, float64: the three terms nearly cancel."""
        return (square_distances(x, y) / 2 if self.p == 2 else torch.cdist(x, y)).double()

    def _within(self, x: Tensor, a: Tensor, epsilon: Tensor) -> Tensor:
        """``OT_ε`` of each set with itself ``(c,)``."""
        if self.blur == 0:
            return torch.zeros_like(a[:, 0])
        cost = self._cost(x, x)
        if self.blur == math.inf:
            return weighted_mean(cost, a, a)
        return _dual(cost, self._own_potentials(cost, a, epsilon), a, a, epsilon)

    @torch.no_grad()
    def _potentials(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor) -> Tensor:
        """The potential g of the columns ``(c, n)`` at which the plan has both marginals.

        Newton's method in the potential f of the m rows, with g = softmin(f). Alternate scaling, the usual way, has no
        bound on its rounds where points are weakly coupled, as they are when the two sets nearly agree. Not a number
        where a cost is none: what went wrong is not for this function to say.
        """
        if not bool(cost.isfinite().all()):
            return torch.full_like(b, math.nan)
        turned, now, f = cost.transpose(1, 2), torch.maximum(cost.amax((1, 2)), epsilon), torch.zeros_like(a)
        padding, shares = torch.diag_embed((a == 0).to(a)), torch.where(b > 0, b, 1.0)[:, None]
        logs = a.log()[:, :, None] + b.log()[:, None]
        for _ in range(_ROUNDS):
            g = _softmin(f, turned, a, now)
            plan = torch.exp(logs + (f[:, :, None] + g[:, None] - cost) / now[:, None, None])
            rows = plan.sum(2)
            short = a - rows
            missed = short.abs().sum(1)
            # Each class stops on its own, and so does not depend on which others are there.
            active = (now > epsilon) | (missed > self.tolerance)
            if not bool(active.any()):
                return g
            # A constant moves nothing, and neither do, within rounding, points that no mass connects.
            curvature = torch.diag_embed((1 + _RIDGE) * rows) - plan @ (plan / shares).transpose(1, 2)
            curvature = curvature + a[:, :, None] * a[:, None] + padding
            step = now[:, None] * torch.linalg.solve(curvature, short)
            # Within half an ε of the start the curvature at most doubles or so: a step never overshoots.
            step = step * (now / 2 / step.abs().amax(1)).clamp(max=1)[:, None]
            f = torch.where(active[:, None], f + step, f)
            now = torch.where(missed < _NEAR, torch.maximum(now / 2, epsilon), now)
        raise self._unsettled()

    @torch.no_grad()
    def _own_potentials(self, cost: Tensor, a: Tensor, epsilon: Tensor) -> Tensor:
        """The potential h of a set with itself ``(c, m)``, where f = g = h.

        The kernel exp(−C / ε) being positive definite, a mean of h and softmin(h) halves the error in every round.
        Not a number where a cost is none.
        """
        if not bool(cost.isfinite().all()):
            return torch.full_like(a, math.nan)
        now, h = torch.maximum(cost.amax((1, 2)), epsilon), torch.zeros_like(a)
        for _ in range(_ROUNDS):
            moved = _softmin(h, cost, a, now)
            missed = (a * torch.expm1((h - moved) / now[:, None])).abs().sum(1)
            active = (now > epsilon) | (missed > self.tolerance)
            h, now = torch.where(active[:, None], (h + moved) / 2, h), torch.maximum(now / 2, epsilon)
            if not bool(active.any()):
                return h
        raise self._unsettled()

    def _unsettled(self) -> InputError:
        return InputError(
            f"sinkhorn did not settle in {_ROUNDS:,} rounds at by.blur = {self.blur} and by.tolerance = "
            f"{self.tolerance}: give a larger one of the two, or blur = 0 for exact transport"
        )


def _centre(points: Tensor, weights: Tensor) -> Tensor:
    """``(c, 1, d)``."""
    return (weights[:, :, None] * points).sum(1, keepdim=True)


def _measure(weights: Tensor) -> Tensor:
    """Weights that sum to one in float64 too: no plan has marginals of different sums."""
    return weights.double() / weights.double().sum(1, keepdim=True)


def _softmin(g: Tensor, cost: Tensor, b: Tensor, epsilon: Tensor) -> Tensor:
    """``−ε log Σ_j b_j exp((g_j − C_ij) / ε)`` as ``(c, m)``, of g and b ``(c, n)``; differentiable in the cost.

    By expm1 and log1p, so that nothing is lost where ε is far above all costs.
    """
    exponent = (g.masked_fill(b == 0, -math.inf)[:, None] - cost) / epsilon[:, None, None]
    most = exponent.detach().amax(2, keepdim=True)
    rest = (b[:, None] * torch.expm1(exponent - most)).sum(2)
    return -epsilon[:, None] * (most[..., 0] + torch.log1p(rest))


def _dual(cost: Tensor, g: Tensor, a: Tensor, b: Tensor, epsilon: Tensor) -> Tensor:
    """``OT_ε`` of each class ``(c,)`` from the potential g: its gradient in the cost is the plan."""
    return (a * _softmin(g, cost, b, epsilon)).sum(1) + (b * g).sum(1)


@torch.no_grad()
def _exact_plans(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([exact_plan(*each) for each in zip(cost, a, b, strict=True)])
