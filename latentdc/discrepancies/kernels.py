"""The multi-bandwidth Gaussian kernel: its lengths from real points, and its values."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdc.discrepancies.base import class_sums

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of a class's squared length, one Gaussian each; the kernel is their sum, so ``k(x, x) = 5``."""


def mean_square_distance(points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Tensor:
    """Mean squared distance between two different points of each class ``(k,)``, float64, detached.

    ``b_c = Σ_{i≠j} a_i a_j ‖x_i − x_j‖² / Σ_{i≠j} a_i a_j`` with ``a`` the weights, in O(n d) from moments. A class
    whose points are all one has none, and takes ``2 · mean ‖x‖²``, which does not depend on what other classes are
    there; 1 where these are zero. A class without points takes the mean of the others', or 1.
    """
    with torch.no_grad():
        points = points.double()
        sums, mass = class_sums(points, owner, num_classes, w)
        tiny = torch.finfo(points.dtype).tiny
        centred = points - (sums / mass.clamp(min=tiny)[:, None])[owner]
        squares, _ = class_sums(centred.square().sum(1, keepdim=True), owner, num_classes, w)
        own = torch.ones_like(points[:, :1]) if w is None else w.double()[:, None]
        same, _ = class_sums(own, owner, num_classes, w)  # Σ a_i²
        pairs = (mass.square() - same[:, 0]).clamp(min=tiny)
        found = 2 * mass * squares[:, 0] / pairs
        # Equal points differ by rounding only; such a length would be noise.
        size, _ = class_sums(points.square().sum(1, keepdim=True), owner, num_classes, w)
        size = size[:, 0] / mass.clamp(min=tiny)
        usable = (found > 1e-12 * (1 + size)) & (pairs > tiny)
        found = torch.where(usable, found, torch.where(size > 0, 2 * size, 1.0))
        there = mass > 0
        others = found[there].mean() if bool(there.any()) else found.new_ones(())
        return torch.where(there, found, others)


def square_distances(x: Tensor, y: Tensor) -> Tensor:
    """``‖x_i − y_j‖²`` of points ``(c, n, d)`` and ``(c, m, d)`` as ``(c, n, m)``; centre them first for accuracy."""
    norms = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :]
    return (norms - 2 * x @ y.transpose(1, 2)).clamp(min=0)


def gaussians(square: Tensor, scale: Tensor) -> Tensor:
    """``Σ_f exp(−d² / (f b))`` of squared distances ``(c, n, m)`` and squared lengths b ``(c,)``."""
    reduced = -square / scale[:, None, None]
    return torch.stack([torch.exp(reduced / factor) for factor in FACTORS]).sum(0)


def weighted_mean(values: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``Σ_ij a_i b_j values_ij`` per class: ``(c, n, m)``, ``(c, n)``, ``(c, m)`` to ``(c,)``."""
    return (a * (values @ b[:, :, None])[:, :, 0]).sum(1)
