"""Sinkhorn divergence as its definition reads: loops over classes and pairs, plans by plain alternate scaling."""

from __future__ import annotations

import itertools
import math

from reference.mmd_loop import bandwidth_loop
from torch import Tensor

Points = list[list[float]]


def sinkhorn_loop(
    real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, blur: float = 0.1, p: int = 2
) -> float:
    """Sum over classes of ``OT(x, y) − ½ OT(x, x) − ½ OT(y, y)``, points of equal weight."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        theirs = list(real[real_owner == cls])
        x, y = syn[syn_owner == cls].tolist(), real[real_owner == cls].tolist()
        if blur == 0:
            total += _assigned(x, y, p)
            continue
        epsilon = (blur * bandwidth_loop(theirs) ** 0.5) ** p
        total += _cost(x, y, epsilon, p) - _cost(x, x, epsilon, p) / 2 - _cost(y, y, epsilon, p) / 2
    return total


def _distance(a: list[float], b: list[float], p: int) -> float:
    return math.dist(a, b) if p == 1 else math.dist(a, b) ** 2 / 2


def _assigned(x: Points, y: Points, p: int) -> float:
    """Least cost over all ways to give every real point its share of synthetic ones, both sides repeated to equal
    numbers: dynamic programming over what is left of each synthetic point."""
    many = math.lcm(len(x), len(y))
    best = {tuple([many // len(x)] * len(x)): 0.0}
    for t in y:
        for _ in range(many // len(y)):
            after: dict[tuple[int, ...], float] = {}
            for left, cost in best.items():
                for i, s in enumerate(x):
                    if left[i]:
                        key = (*left[:i], left[i] - 1, *left[i + 1 :])
                        after[key] = min(after.get(key, math.inf), cost + _distance(s, t, p))
            best = after
    return min(best.values()) / many


def _cost(x: Points, y: Points, epsilon: float, p: int) -> float:
    """``min_π Σ π C + ε KL(π ‖ a ⊗ b)``, from the plan ``u_i v_j exp(−C_ij / ε) a b`` whose scalings alternate."""
    a, b = 1 / len(x), 1 / len(y)
    costs = [[_distance(s, t, p) for t in y] for s in x]
    if epsilon == math.inf:
        return sum(a * b * each for each in itertools.chain(*costs))
    kernel = [[math.exp(-each / epsilon) for each in row] for row in costs]
    v = [1.0] * len(y)
    for _ in range(3000):
        u = [1 / sum(b * k * w for k, w in zip(row, v, strict=True)) for row in kernel]
        v = [1 / sum(a * row[j] * w for row, w in zip(kernel, u, strict=True)) for j in range(len(y))]
    total = 0.0
    for i, j in itertools.product(range(len(x)), range(len(y))):
        share = u[i] * v[j] * kernel[i][j]
        total += a * b * share * (costs[i][j] + (epsilon * math.log(share) if share > 0 else 0.0))
    return total
