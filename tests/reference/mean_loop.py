"""Distribution matching as its equation reads: a loop over classes and images."""

from __future__ import annotations

from torch import Tensor


def mean_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor) -> float:
    """Sum over classes of the squared distance of means."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        mine = [row for row, owner in zip(syn, syn_owner, strict=True) if owner == cls]
        theirs = [row for row, owner in zip(real, real_owner, strict=True) if owner == cls]
        gap = sum(mine) / len(mine) - sum(theirs) / len(theirs)  # type: ignore[operator]
        total += float((gap**2).sum())
    return total
