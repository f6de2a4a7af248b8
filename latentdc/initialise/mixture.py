"""A Gaussian mixture with diagonal covariances, fitted by expectation maximisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from latentdc.clusters import kmeans
from latentdc.errors import InputError

_FLOOR = 1e-3
"""Least variance of a component, as a share of the mean variance of the points: no component collapses on one point."""


class Gaussians(NamedTuple):
    """Components of a mixture, heaviest first."""

    means: Tensor
    """``(m, d)``."""
    variances: Tensor
    """``(m, d)``, positive."""
    weights: Tensor
    """``(m,)``, sum 1."""


def mixture(
    points: Tensor, num: int, rng: torch.Generator, *, iterations: int = 50, tolerance: float = 1e-4
) -> Gaussians:
    """Maximum likelihood of ``p(x) = Σ_j π_j N(x; μ_j, diag σ²_j)`` by EM, from k-means centres.

    Args:
        points: ``(n, d)``, any float dtype, on the CPU.
        num: number of components m, 1 ≤ m ≤ n.
        rng: CPU generator of the starting centres.
        iterations: at most this many passes.
        tolerance: stops when the mean log-likelihood gains less than this per dimension.

    Raises:
        InputError: ``num`` is not in [1, n].

    *Reference:* Dempster, Laird and Rubin 1977, J. R. Stat. Soc. B 39.
    """
    if not 1 <= num <= len(points):
        raise InputError(f"{num} components of {len(points)} points: give between 1 and {len(points)}")
    x = points.double()
    spread = x.var(0, unbiased=False)
    least = spread.mean().clamp(min=torch.finfo(torch.float32).eps) * _FLOOR
    means = kmeans(points, num, rng).double()
    variances = spread.clamp(min=float(least)).expand(num, -1).clone()
    weights = torch.full((num,), 1 / num, dtype=torch.float64)
    last = -math.inf
    for _ in range(iterations):
        joint = _log_density(x, means, variances) + weights.log()  # (n, m)
        total = joint.logsumexp(1, keepdim=True)
        share = (joint - total).exp()
        mass = share.sum(0).clamp(min=torch.finfo(torch.float64).tiny)
        means = share.T @ x / mass[:, None]
        variances = (share.T @ x.square() / mass[:, None] - means.square()).clamp(min=float(least))
        weights = mass / mass.sum()
        now = float(total.mean()) / x.shape[1]
        if now - last < tolerance:
            break
        last = now
    order = weights.argsort(descending=True, stable=True)
    return Gaussians(means[order].to(points), variances[order].to(points), weights[order].to(points))


def _log_density(x: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """``log N(x_i; μ_j, diag σ²_j)`` ``(n, m)``."""
    precision = 1 / variances
    square = x.square() @ precision.T - 2 * x @ (means * precision).T + (means.square() * precision).sum(1)
    return -0.5 * (square + variances.log().sum(1) + x.shape[1] * math.log(2 * math.pi))
