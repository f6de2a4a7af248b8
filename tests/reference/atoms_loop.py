"""Regression onto atoms as its definition reads: k-means in loops over points, and every way to give out the atoms."""

from __future__ import annotations

import itertools
import math

from torch import Tensor

Points = list[list[float]]


def atoms_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, power: int = 2) -> float:
    """Sum over classes of the least sum of mass times distance to the power, real points of equal weight."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        x, y = syn[syn_owner == cls].tolist(), real[real_owner == cls].tolist()
        clusters = kmeans_loop(y, len(x))
        atoms, masses = [_mean(each) for each in clusters], [len(each) / len(y) for each in clusters]
        total += min(
            sum(masses[j] * math.dist(point, atoms[j]) ** power for point, j in zip(x, order, strict=True))
            for order in itertools.permutations(range(len(x)))
        )
    return total


def kmeans_loop(points: Points, num: int) -> list[Points]:
    """Clusters: the widest is cut at its mean along its widest coordinate, then each point joins the nearest centre."""
    clusters = [points]
    while len(clusters) < num:
        worst = max(clusters, key=lambda each: sum(_spreads(each)))
        axis = _spreads(worst).index(max(_spreads(worst)))
        cut = _mean(worst)[axis]
        clusters.remove(worst)
        clusters += [[p for p in worst if p[axis] <= cut], [p for p in worst if p[axis] > cut]]
    for _ in range(100):
        centres = [_mean(each) for each in clusters]
        clusters = [[] for _ in centres]
        for p in points:
            clusters[min(range(num), key=lambda j, p=p: math.dist(p, centres[j]))].append(p)
    return clusters


def _mean(points: Points) -> list[float]:
    return [sum(column) / len(points) for column in zip(*points, strict=True)]


def _spreads(points: Points) -> list[float]:
    columns = zip(zip(*points, strict=True), _mean(points), strict=True)
    return [sum((v - mean) ** 2 for v in column) for column, mean in columns]
