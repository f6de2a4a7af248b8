"""Minimax: every synthetic image near all real ones of its class, and far from the nearest other synthetic one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.discrepancies import Summary
from latentdc.discrepancies.base import group
from latentdc.objectives.match import Match
from latentdc.objectives.penalties.base import KeptPoints, Penalty, kept
from latentdc.representations import Features
from latentdc.source import Look, View
from latentdc.types import EMBEDDING, Batch


@dataclass(frozen=True)
class _Farthest(KeptPoints):
    """One less the cosine between a synthetic point and the real one of its class least similar to it, averaged."""

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the classes among ``owner``."""
        classes = torch.unique(owner)
        ours, mass = group(functional.normalize(points, dim=1), owner, classes, w)  # (c, m, d), (c, m)
        theirs, weights = kept(real, classes, points)  # (c, n, d), (c, n)
        cosine = ours @ functional.normalize(theirs, dim=2).mT  # (c, m, n)
        least = cosine.masked_fill(weights[:, None] <= 0, torch.inf).amin(2)
        return (mass * (1 - least)).sum()


class NearReal(Penalty):
    """Draws each synthetic image towards the real image of its class that it resembles least.

    ``weight · Σ_c (1/m_c) Σ_{i ∈ S_c} ( 1 − min_{x ∈ T_c} cos(ψ(ω(s_i)), ψ(ω(x))) )``, features of the embedding: in
    [0, 2] for each class. It looks at the step's real images.

    Args:
        weight: of this term beside the match, whose weight is 1. The published 0.002 stands beside a diffusion loss
            of about 1, whatever the number of features.

    Raises:
        InputError: a weight out of range; when called, a source that holds no real images, such as a sketch.

    *Reference:* Gu et al. 2024, "Efficient Dataset Distillation via Minimax Diffusion", arXiv 2311.15529, the
    representativeness term.
    *Differs from the authors' code:* there it tunes a diffusion model, in the space of its latents, against a memory
    of the last 64 real latents; here it moves images, in a network's feature space, against the step's real images.
    """

    needs = EMBEDDING
    needs_images = True
    cite: ClassVar[tuple[str, ...]] = ("gu2024minimax",)

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.match = Match(Features(), _Farthest())

    @property
    def looks(self) -> tuple[Look, ...]:
        """Of the embedding, all real points."""
        return self.match.looks

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Weighted sum over the classes present."""
        loss: Tensor = self.match(view, syn)
        return self.weight * loss


class FarFromSelf(Penalty):
    """Pushes each synthetic image away from the other one of its class that it resembles most.

    ``weight · Σ_c (1/m_c) Σ_{i ∈ S_c} max_{j ∈ S_c, j ≠ i} cos(ψ(ω(s_i)), ψ(ω(s_j)))``, features of the embedding: in
    [-1, 1] for each class. A class of one image has no such term.

    Args:
        weight: of this term beside the match, whose weight is 1. The published 0.008 stands beside a diffusion loss
            of about 1, whatever the number of features.

    Raises:
        InputError: a weight out of range.

    *Reference:* Gu et al. 2024, "Efficient Dataset Distillation via Minimax Diffusion", arXiv 2311.15529, the
    diversity term.
    *Differs from the authors' code:* as of ``NearReal``; in place of a memory of the last 64 generated latents it
    looks at the images of the class themselves, which are all at hand.
    """

    needs = EMBEDDING
    cite: ClassVar[tuple[str, ...]] = ("gu2024minimax",)

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.see = Features()

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Weighted sum over the classes present."""
        (shown,) = self.see(view.net, view.augment(syn), differentiable=True)
        with torch.autocast(syn.x.device.type, enabled=False):
            f, w = group(functional.normalize(shown, dim=1), syn.owner, torch.unique(syn.owner), syn.w)
            itself = torch.eye(w.shape[1], dtype=torch.bool, device=w.device)
            most = (f @ f.mT).masked_fill(itself | (w[:, None] <= 0), -torch.inf).amax(2)  # (c, m)
            return self.weight * (w * torch.where(most.isfinite(), most, 0)).sum()
