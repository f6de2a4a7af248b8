"""Energy distance as its equation reads: loops over classes and pairs."""

from __future__ import annotations

from reference.mmd_loop import v_statistic
from torch import Tensor


def energy_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor) -> float:
    """Sum over classes of ``2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖``."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        x, y = list(syn[syn_owner == cls]), list(real[real_owner == cls])
        total += v_statistic(x, y, lambda p, q: -(float(((p - q) ** 2).sum()) ** 0.5))
    return total
