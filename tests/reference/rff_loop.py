"""Random Fourier features as their equation reads, from the part's own frequencies."""

from __future__ import annotations

import cmath

from reference.mmd_loop import bandwidth_loop
from torch import Tensor


def rff_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, frequencies: Tensor) -> float:
    """Sum over classes and frequencies of the squared difference of characteristic functions.

    Column j of ``frequencies`` ``(d, num)`` belongs to bandwidth factor j mod 5 at unit length.
    """
    num, total = frequencies.shape[1], 0.0
    for cls in sorted(set(syn_owner.tolist())):
        x, y = list(syn[syn_owner == cls]), list(real[real_owner == cls])
        length = bandwidth_loop(y) ** 0.5
        for j in range(num):
            share = 1 / len(range(j % 5, num, 5))
            mean = [sum(cmath.exp(1j * float(p @ frequencies[:, j]) / length) for p in s) / len(s) for s in (x, y)]
            total += share * abs(mean[0] - mean[1]) ** 2
    return total
