"""Moments as their equation reads: loops over classes, coordinates and points."""

from __future__ import annotations

from torch import Tensor


def moments_loop(
    real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, weights: tuple[float, float, float] = (1, 1, 1)
) -> float:
    """Sum over classes, coordinates and the first three moments of the weighted squared difference."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        sides = (syn[syn_owner == cls].T.tolist(), real[real_owner == cls].T.tolist())
        for ours, theirs in zip(*sides, strict=True):
            gaps = [a - b for a, b in zip(_moments(ours), _moments(theirs), strict=True)]
            total += sum(weight * gap**2 for weight, gap in zip(weights, gaps, strict=True))
    return total


def _moments(values: list[float]) -> tuple[float, float, float]:
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values), sum((v - mean) ** 3 for v in values) / len(values)
