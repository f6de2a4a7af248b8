"""Seeded k-means, and its medoids: the points nearest to its centres."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdc.errors import InputError


def _spread(points: Tensor, num: int, rng: torch.Generator) -> Tensor:
    """k-means++ starting centres ``(num, d)``: each next centre is drawn in proportion to its squared distance."""
    chosen = [int(torch.randint(len(points), (1,), generator=rng))]
    nearest = (points - points[chosen[0]]).square().sum(1)
    for _ in range(num - 1):
        mass = nearest if float(nearest.sum()) > 0 else torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(mass, 1, generator=rng)))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
    return points[chosen]


def kmeans(points: Tensor, num: int, rng: torch.Generator, *, iterations: int = 30) -> Tensor:
    """Centres ``(num, d)`` of Lloyd's algorithm from k-means++ starts; an empty cluster keeps its centre.

    Args:
        points: ``(n, d)``, any float dtype, on the CPU.
        num: number of centres, 1 ≤ num ≤ n.
        rng: CPU generator of the starting centres.
        iterations: at most this many passes; stops when no centre moves.

    Raises:
        InputError: ``num`` is not in [1, n].

    *Reference:* Arthur and Vassilvitskii 2007 (k-means++).
    """
    if not 1 <= num <= len(points):
        raise InputError(f"{num} clusters of {len(points)} points: give between 1 and {len(points)}")
    centres = _spread(points, num, rng)
    for _ in range(iterations):
        owner = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        counts = torch.bincount(owner, minlength=num).to(points.dtype)[:, None]
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def medoids(points: Tensor, num: int, rng: torch.Generator, *, iterations: int = 30) -> Tensor:
    """Indices ``(num,)`` of distinct points, each the nearest left over to one k-means centre, largest cluster first.

    Raises:
        InputError: ``num`` is not in [1, n].
    """
    centres = kmeans(points, num, rng, iterations=iterations)
    distance = torch.cdist(points, centres)
    sizes = torch.bincount(distance.argmin(1), minlength=num)
    taken = torch.zeros(len(points), dtype=torch.bool)
    picked = []
    for cluster in sizes.argsort(descending=True, stable=True).tolist():
        index = int(distance[:, cluster].masked_fill(taken, torch.inf).argmin())
        taken[index] = True
        picked.append(index)
    return torch.tensor(picked, dtype=torch.int64)
