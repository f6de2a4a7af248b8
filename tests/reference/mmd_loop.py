"""Multi-bandwidth MMD² as its equation reads: loops over classes, pairs and bandwidths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

FACTORS = (0.25, 0.5, 1, 2, 4)


def bandwidth_loop(points: Sequence[Tensor]) -> float:
    """Mean squared distance over ordered pairs of different points."""
    pairs = [(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
    return sum(float(((a - b) ** 2).sum()) for a, b in pairs) / len(pairs)


def kernel_loop(x: Tensor, y: Tensor, bandwidth: float) -> float:
    """Sum of five Gaussians of one pair."""
    square = float(((x - y) ** 2).sum())
    return sum(math.exp(-square / (factor * bandwidth)) for factor in FACTORS)


def v_statistic(x: Sequence[Tensor], y: Sequence[Tensor], kernel: Callable[[Tensor, Tensor], float]) -> float:
    """``mean k(x, x') − 2 mean k(x, y) + mean k(y, y')``, all pairs."""

    def mean(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        return sum(kernel(p, q) for p in a for q in b) / (len(a) * len(b))

    return mean(x, x) - 2 * mean(x, y) + mean(y, y)


def mmd_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor) -> float:
    """Sum over classes, each with the bandwidth of its own real points."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        x, y = list(syn[syn_owner == cls]), list(real[real_owner == cls])
        length = bandwidth_loop(y)
        total += v_statistic(x, y, lambda p, q, length=length: kernel_loop(p, q, length))
    return total
