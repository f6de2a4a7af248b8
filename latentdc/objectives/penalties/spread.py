"""How the synthetic images lie among each other: apart within a class, and classes apart."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.discrepancies.base import group
from latentdc.errors import InputError
from latentdc.objectives.penalties.base import Penalty
from latentdc.representations import Features
from latentdc.source import View
from latentdc.types import EMBEDDING, Batch


class IntraInter(Penalty):
    """Pushes the images of a class away from each other, and the means of classes apart, in feature space.

    ``weight · ( Σ_c mean_{i ≠ j ∈ S_c} exp(−‖f_i − f_j‖² / τ) + Σ_{c < c'} max(0, margin − ‖μ_c − μ_c'‖) )`` with
    ``f = ψ(ω(s)) / ‖ψ(ω(s))‖`` the embedding at unit length, so that distances lie in [0, 2] whatever the network, and
    ``μ_c`` the mean of f over S_c. The first term of a class lies in [0, 1]; one of a single image has none. Every pair
    of classes is looked at, so the classes cannot be shared out.

    Args:
        weight: of this term beside the match, whose weight is 1.
        temperature: τ; images much farther apart than its root are left alone.
        margin: distance beyond which two classes are far enough apart.

    Raises:
        InputError: a value out of range.

    *Reference:* Zhang et al. 2023, "Dataset Condensation via Generative Model", arXiv 2309.07698.
    *Differs from the authors' code:* there is none in public. What the two terms do is theirs, their form is ours.
    """

    scope = "all"
    needs = EMBEDDING
    cite: ClassVar[tuple[str, ...]] = ("zhang2023generative",)

    def __init__(self, weight: float = 0.1, temperature: float = 0.5, margin: float = 1.0) -> None:
        super().__init__(weight)
        for name, value in {"temperature": temperature, "margin": margin}.items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value}: give a positive, finite number.")
        self.temperature, self.margin, self.see = temperature, margin, Features()

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Weighted sum over the classes present and their pairs."""
        (shown,) = self.see(view.net, view.augment(syn), differentiable=True)
        with torch.autocast(syn.x.device.type, enabled=False):
            f, w = group(functional.normalize(shown, dim=1), syn.owner, torch.unique(syn.owner), syn.w)
            return self.weight * (self._intra(f, w) + self._inter((w[:, :, None] * f).sum(1)))

    def _intra(self, f: Tensor, w: Tensor) -> Tensor:
        """Sum over classes of unit points ``(c, m, d)`` and weights ``(c, m)``."""
        near = torch.exp((2 * f @ f.mT - 2) / self.temperature)  # (c, m, m)
        pairs = w[:, :, None] * w[:, None] * (1 - torch.eye(w.shape[1], dtype=w.dtype, device=w.device))
        return ((pairs * near).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=torch.finfo(w.dtype).tiny)).sum()

    def _inter(self, means: Tensor) -> Tensor:
        """Sum over pairs of class means ``(c, d)``."""
        one, other = torch.triu_indices(len(means), len(means), offset=1, device=means.device)
        # Two means in one place would have no direction to part in; the root's own slope there is infinite.
        gaps = ((means[one] - means[other]).square().sum(1) + torch.finfo(means.dtype).eps ** 2).sqrt()
        return (self.margin - gaps).relu().sum()
