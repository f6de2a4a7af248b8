"""The distance of class means written as loops over classes, points and coordinates."""

from __future__ import annotations

from torch import Tensor


def norm_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, p: int = 2) -> float:
    """``Σ_c ( Σ_i | m_T,i − m_S,i |^p )^(1/p)``."""
    total = 0.0
    for cls in set(syn_owner.tolist()):
        ours = [row.tolist() for row, owner in zip(syn, syn_owner, strict=True) if owner == cls]
        theirs = [row.tolist() for row, owner in zip(real, real_owner, strict=True) if owner == cls]
        powers = 0.0
        for i in range(len(ours[0])):
            mean_syn = sum(row[i] for row in ours) / len(ours)
            mean_real = sum(row[i] for row in theirs) / len(theirs)
            powers += abs(mean_real - mean_syn) ** p
        total += powers ** (1 / p)
    return total
