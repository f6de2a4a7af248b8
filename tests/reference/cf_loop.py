"""Characteristic functions as their equation reads: loops over classes, frequencies and points."""

from __future__ import annotations

import cmath
import math

from torch import Tensor


def cf_loop(
    real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, frequencies: Tensor, alpha: float = 0.5
) -> float:
    """Sum over classes of the mean over frequencies ``(d, num)`` of the root of amplitude and phase difference."""
    total, num = 0.0, frequencies.shape[1]
    for cls in sorted(set(syn_owner.tolist())):
        sides = [[p / p.norm() for p in points] for points in (real[real_owner == cls], syn[syn_owner == cls])]
        for t in frequencies.T:
            theirs, ours = (sum(cmath.exp(1j * float(t @ p)) for p in side) / len(side) for side in sides)
            amplitude = (abs(theirs) - abs(ours)) ** 2
            turn = cmath.phase(theirs) - cmath.phase(ours)
            phase = 2 * abs(theirs) * abs(ours) * (1 - math.cos(turn))
            total += math.sqrt(alpha * amplitude + (1 - alpha) * phase) / num
    return total
