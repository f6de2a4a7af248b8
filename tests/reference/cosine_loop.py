"""The cosine of class means as its equation reads: a loop over classes."""

from __future__ import annotations

import math

from torch import Tensor


def cosine_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, eps: float = 1e-6) -> float:
    """Sum over classes of one less the cosine between the two means."""
    total = 0.0
    for cls in sorted(set(syn_owner.tolist())):
        a, b = (
            [sum(column) / len(column) for column in zip(*points[owner == cls].tolist(), strict=True)]
            for points, owner in ((real, real_owner), (syn, syn_owner))
        )
        inner = sum(x * y for x, y in zip(a, b, strict=True))
        total += 1 - inner / (math.hypot(*a) * math.hypot(*b) + eps)
    return total
