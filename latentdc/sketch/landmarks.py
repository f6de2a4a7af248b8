"""Landmarks: a few weighted points that stand for all points of a class, for discrepancies that no sum can serve."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdc.clusters import kmeans


@torch.no_grad()
def landmarks(points: Tensor, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sums ``(m, d)`` and masses ``(m,)`` of the clusters of k-means: landmark j is ``sums_j / masses_j``.

    A class of no more than ``num`` points is kept as it is, each point with mass 1; so nothing is lost where
    ``num ≥ n``. Otherwise m is ``num``, masses are numbers of points (0 of a cluster that was left empty), and the mean
    of the points is kept to rounding.

    With ``v = (1/n) Σ_i ‖x_i − c(i)‖²``, the mean squared distance of a point to its landmark, which k-means makes
    small and which falls to 0 as ``num`` grows to n, no discrepancy moves by more than this when points are exchanged
    for their landmarks: ``W₂`` and ``W₁`` by ``√v`` (moving each point to its landmark is a plan of that cost), sliced
    ``W₂`` by ``√v``, the energy distance by ``4 √v``, and the root of ``mmd`` by ``√(15.5 v / b)`` with its squared
    length b.

    Args:
        points: ``(n, d)``, float32, on the CPU.
        num: most landmarks.
        rng: CPU generator of the starting centres.
    """
    if len(points) <= num:
        return points.clone(), torch.ones(len(points), dtype=torch.float64)
    centre = points.mean(0)
    near = points - centre  # distances stay, rounding shrinks
    label = torch.cdist(near, kmeans(near, num, rng)).argmin(1)
    sums = torch.zeros(num, points.shape[1], dtype=torch.float64).index_add_(0, label, points.double())
    return sums.to(points.dtype), torch.bincount(label, minlength=num).double()
