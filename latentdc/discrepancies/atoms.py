"""Regression onto atoms: the real points of a class quantised to as many as there are synthetic ones, one for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_means, class_sums, face, hold
from latentdc.discrepancies.transport import exact_plan
from latentdc.errors import InputError

_ROUNDS = 100


@dataclass(frozen=True)
class Atoms(Discrepancy):
    """Distance of each synthetic point to an atom of its own, the atoms being the best few that stand for the real set.

    ``Σ_c min_σ Σ_j a_σ(j) ‖s_j − b_σ(j)‖²`` with b the centres of k-means over the class's real points, as many as it
    has synthetic ones, a the share of real points (by weight) each stands for, and σ the cheapest way to give every
    synthetic point one (Hungarian method). k-means minimises ``W₂²`` between the real points and any measure on so few;
    the sum is the part of that distance that the synthetic points can still lose. Of one point per class it is
    ``mean``. Range [0, ∞); zero on equal sets. Costs O(n m d rounds + m³) per class, in every call.

    The quantiser is deterministic and knows no order: the cluster of largest spread is split at its mean along the
    coordinate of largest spread until there are enough, then Lloyd's rounds go on until nothing moves (100 at most).
    Where there are fewer different real points than synthetic ones, the atoms left over have no mass, and a synthetic
    point that is given one is not pulled.

    *Reference:* Liu et al. 2023 (WMDD), arXiv 2311.18531, the feature term; Tan and Slade 2025 (DDOQ), arXiv
    2501.07681, for masses; Su and Dy 2007, Intell. Data Anal. 11, for where k-means starts.
    *Differs from the authors' code:* WMDD's atoms all have equal mass, are taken once over the whole data set and stay
    with the image they were given to; from mini-batches ours are those of the step's images, and so are their masses.
    Its distance is one norm of the differences of a whole batch of images together; ``squared = false`` sums one norm
    for each point.

    Args:
        squared: whether distances are squared.

    Raises:
        InputError: in a call, synthetic points of unequal weights: a point's weight here is its atom's mass.
    """

    cite: ClassVar[tuple[str, ...]] = ("liu2025wmdd", "tan2025ddoq")

    squared: bool = True

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points themselves; ``scale`` has no meaning here."""
        del scale
        return hold(points, owner, num_classes, w)

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        _, syn, a, held, b = face(real, points, owner, w, self)
        total = points.new_zeros(())
        for x, share, y, weight in zip(syn, a, held, b, strict=True):
            x, share, some = x[share > 0], share[share > 0], weight > 0
            if bool(((share - share[0]).abs() > 1e-5 * share[0]).any()):
                raise InputError(
                    "atoms was given synthetic points of unequal weights; it gives each its atom's mass: leave them out"
                )
            total = total + self._apart(x, *quantise(y[some], weight[some], len(x)))
        return total

    def _apart(self, x: Tensor, atoms: Tensor, mass: Tensor) -> Tensor:
        with torch.no_grad():
            cost = mass * torch.cdist(x, atoms) ** (2 if self.squared else 1)
            # Equal masses make a permutation of the plan.
            atom = exact_plan(cost, torch.ones_like(mass), torch.ones_like(mass)).argmax(1)
        distance: Tensor = torch.linalg.vector_norm(x - atoms[atom], dim=1)
        return (mass[atom] * (distance.square() if self.squared else distance)).sum()


@torch.no_grad()
def quantise(points: Tensor, weights: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Atoms ``(num, d)`` and their masses ``(num,)`` that stand for points ``(n, d)`` of weights ``(n,)``: k-means."""
    centre = (weights[:, None] * points).sum(0) / weights.sum()
    points = points - centre  # distances stay, rounding shrinks
    label = _split(points, weights, num)
    for _ in range(_ROUNDS):
        atoms, used = class_means(points, label, num, weights)
        nearest = torch.cdist(points, atoms).masked_fill(~used, torch.inf).argmin(1)
        if torch.equal(nearest, label):
            break
        label = nearest
    atoms, _ = class_means(points, label, num, weights)
    _, mass = class_sums(points, label, num, weights)
    return atoms + centre, mass


def _split(points: Tensor, weights: Tensor, num: int) -> Tensor:
    """Cluster of each point ``(n,)``: the widest one is cut in two until there are ``num``."""
    label, spreads = torch.zeros(len(points), dtype=torch.int64, device=points.device), [_spread(points, weights)]
    for new in range(1, num):
        worst = int(torch.stack(spreads).sum(1).argmax())
        rows = (label == worst).nonzero().flatten()
        along = points[rows, spreads[worst].argmax()]
        above = along > (weights[rows] * along).sum() / weights[rows].sum()
        label[rows[above]] = new
        spreads[worst] = _spread(points[rows[~above]], weights[rows[~above]])
        spreads.append(_spread(points[rows[above]], weights[rows[above]]))
    return label


def _spread(points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of squared deviations along each coordinate ``(d,)``."""
    mean = (weights[:, None] * points).sum(0) / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return (weights[:, None] * (points - mean).square()).sum(0)
