"""The min-max game of characteristic functions as its equation reads: loops over classes, ascents, frequencies, points.

The derivative by a log scale is written out: of ``|Φ_T − Φ_S| / √2`` at ``t = σ ∘ n`` it is
``Re( conj(Φ_T − Φ_S) ∂(Φ_T − Φ_S) ) / (√2 |Φ_T − Φ_S|)`` with ``∂Φ / ∂ log σ_l = t_l E[ i x_l exp(i⟨t, x⟩) ]``.
"""

from __future__ import annotations

import cmath
import math

from torch import Tensor


def cf_adversarial_loop(
    real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, drawn: Tensor, ascents: int = 5, rate: float = 0.2
) -> float:
    """Sum over classes of the largest difference that ``ascents`` steps of the scales of draws ``(d, num)`` meet."""
    total, dim, num = 0.0, *drawn.shape
    columns = drawn.T.tolist()
    for cls in sorted(set(syn_owner.tolist())):
        both = (
            [(p / p.norm()).tolist() for p in real[real_owner == cls]],
            [(p / p.norm()).tolist() for p in syn[syn_owner == cls]],
        )
        logs, values = [[0.0] * dim for _ in range(math.ceil(num / 16))], []
        for _ in range(ascents + 1):
            value, slopes = 0.0, [[0.0] * dim for _ in logs]
            for i, n in enumerate(columns):
                t = [math.exp(log) * each for log, each in zip(logs[i // 16], n, strict=True)]
                gap, turns = 0j, [0j] * dim
                for points, share in ((both[0], 1 / len(both[0])), (both[1], -1 / len(both[1]))):
                    for x in points:
                        wave = share * cmath.exp(1j * sum(a * b for a, b in zip(t, x, strict=True)))
                        gap += wave
                        turns = [turn + 1j * x[axis] * t[axis] * wave for axis, turn in enumerate(turns)]
                value += abs(gap) / math.sqrt(2) / num
                for axis, turn in enumerate(turns):
                    slopes[i // 16][axis] += (gap.conjugate() * turn).real / abs(gap)
            values.append(value)
            logs = [
                [log + rate * math.copysign(1, slope) for log, slope in zip(*pair, strict=True)]
                for pair in zip(logs, slopes, strict=True)
            ]
        total += max(values)
    return total
