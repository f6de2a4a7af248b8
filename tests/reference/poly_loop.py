"""MMD² of a polynomial kernel as its equation reads: loops over classes and pairs."""

from __future__ import annotations

from reference.mmd_loop import v_statistic
from torch import Tensor


def poly_loop(
    real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, degree: int = 2, offset: float = 1.0
) -> float:
    """Sum over classes of the V-statistic of ``(⟨x, y⟩ + offset)^degree``."""

    def kernel(p: Tensor, q: Tensor) -> float:
        return float((sum(a * b for a, b in zip(p.tolist(), q.tolist(), strict=True)) + offset) ** degree)

    classes = sorted(set(syn_owner.tolist()))
    return sum(v_statistic(list(syn[syn_owner == c]), list(real[real_owner == c]), kernel) for c in classes)
