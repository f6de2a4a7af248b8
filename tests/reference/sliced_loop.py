"""Sliced distances as their equations read: loops over classes, directions and points."""

from __future__ import annotations

import math
from itertools import product

from torch import Tensor


def sliced_loop(
    real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, directions: Tensor, metric: str = "wasserstein"
) -> float:
    """Sum over classes of the mean over directions ``(d, num)``, points of equal weight."""
    measure, total = {"wasserstein": _wasserstein, "energy": _energy}[metric], 0.0
    dim, num = directions.shape
    share = math.sqrt(math.pi) * math.gamma((dim + 1) / 2) / math.gamma(dim / 2) if metric == "energy" else 1.0
    for cls in sorted(set(syn_owner.tolist())):
        for theta in directions.T:
            x, t = ([float(theta @ p) for p in side] for side in (syn[syn_owner == cls], real[real_owner == cls]))
            total += share * measure(x, t) / num
    return total


def _wasserstein(x: list[float], t: list[float]) -> float:
    """Points repeated until both sides have equally many, then matched in order."""
    many = math.lcm(len(x), len(t))
    both = zip(*(sorted(side * (many // len(side))) for side in (x, t)), strict=True)
    return sum((p - q) ** 2 for p, q in both) / many


def _energy(x: list[float], t: list[float]) -> float:
    def apart(a: list[float], b: list[float]) -> float:
        return sum(abs(p - q) for p, q in product(a, b)) / (len(a) * len(b))

    return 2 * apart(x, t) - apart(x, x) - apart(t, t)
