"""Optimal transport between two finite sets of weighted points, exactly, by shortest augmenting paths."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_NOTHING = 1e-12
"""Share of the mass not worth a path: what rounding leaves over."""


def exact_plan(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The plan ``(n, m)`` of least cost that moves the masses a to b: ``Σ_j π_ij = a_i``, ``Σ_i π_ij = b_j``.

    Row after row is sent along the cheapest way through what has been sent before (successive shortest paths, with
    potentials): the Hungarian method where all masses are one, when the plan is a permutation, and exact up to
    rounding for any masses. It takes at least max(n, m) searches of O(n m): seconds from a thousand points on.

    Args:
        cost: ``(n, m)``; where a number is not finite, no number of the plan is.
        a: masses ``(n,)``, of the same sum as b.
        b: masses ``(m,)``.

    *Reference:* Jonker and Volgenant 1987, Computing 38; with masses, Edmonds and Karp 1972, J. ACM 19.
    """
    if not bool(cost.isfinite().all()):
        return torch.full_like(cost, math.nan)
    if cost.shape[0] < cost.shape[1]:
        return exact_plan(cost.T, b, a).T
    plan, least = _Plan(cost.tolist(), b.tolist()), _NOTHING * float(a.sum())
    for row, mass in enumerate(a.tolist()):
        while mass > least and max(plan.free) > 0:
            mass -= plan.send(row, mass)
    dense = torch.zeros(cost.shape, dtype=torch.float64)
    for column, parts in enumerate(plan.sent):
        dense[list(parts), column] = torch.tensor(list(parts.values()), dtype=torch.float64)
    return dense.to(cost.device, cost.dtype)


@dataclass
class _Plan:
    """What has been sent so far, at least cost among all ways to send the same rows."""

    cost: list[list[float]]
    free: list[float]
    """Mass that each column can still take."""
    sent: list[dict[int, float]] = field(init=False)
    """For each column, the mass it got from each row."""
    u: list[float] = field(init=False)
    """Potential of each row."""
    v: list[float] = field(init=False)
    """Potential of each column: ``cost − u − v ≥ 0``, with equality where mass was sent."""

    def __post_init__(self) -> None:
        self.sent = [{} for _ in self.free]
        self.u, self.v = [0.0] * len(self.cost), [0.0] * len(self.free)

    def send(self, row: int, most: float) -> float:
        """Send as much of a row's mass as one path takes; how much that was."""
        sink, via, back = self._shortest(row)
        ahead, behind = [(via[sink], sink)], []
        while ahead[-1][0] != row:
            other = ahead[-1][0]
            column = back[other]
            behind.append((other, column))
            ahead.append((via[column], column))
        mass = min(most, self.free[sink], *(self.sent[column][other] for other, column in behind))
        for other, column in behind:
            self.sent[column][other] -= mass
            if self.sent[column][other] == 0:
                del self.sent[column][other]
        for other, column in ahead:
            self.sent[column][other] = self.sent[column].get(other, 0.0) + mass
        self.free[sink] -= mass
        return mass

    def _shortest(self, row: int) -> tuple[int, list[int], dict[int, int]]:
        """The nearest column with room, the row before each column, and the column before each row on the way."""
        u, v = self.u, self.v
        reach, via = [each - u[row] - v[k] for k, each in enumerate(self.cost[row])], [row] * len(v)
        at, back, ahead = {row: 0.0}, {}, dict.fromkeys(range(len(v)))
        while True:
            column = min(ahead, key=reach.__getitem__)
            near = reach[column]
            if self.free[column] > 0:
                break
            del ahead[column]
            # Whatever came here from other rows could go elsewhere instead.
            for other in self.sent[column]:
                if other in at:
                    continue
                at[other], back[other] = near, column
                costs, start = self.cost[other], near - u[other]
                for k in ahead:
                    through = start + costs[k] - v[k]
                    if through < reach[k]:
                        reach[k], via[k] = through, other
        for other, distance in at.items():
            u[other] += near - distance
        for k, distance in enumerate(reach):
            if k not in ahead:
                v[k] += distance - near
        return column, via, back
