"""Rows stay near the real images they started from."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import class_means
from latentdc.errors import InputError
from latentdc.objectives.penalties.base import Penalty
from latentdc.representations import Features
from latentdc.source import View
from latentdc.types import Batch


class Pairwise(Penalty):
    """Keeps the images of each row near, in feature space, to the real images that the row started from.

    ``weight · Σ_c (1/m_c) Σ_{i ∈ S_c} ‖ ψ(ω(s_i)) − ψ(ω(x_i)) ‖²`` with x_i the real image of image s_i, both under the
    step's network ψ and the same augmentation draw ω, features summed over coordinates and layers as in ``mean``. By
    Jensen's inequality it is at least ``weight`` times the ``mean`` distance of the set to the images it started from:
    where the match moves class means, this holds single images back. It costs a forward of as many real images as there
    are synthetic ones.

    Args:
        weight: of this term beside the match, whose weight is 1.
        layer: ``"last"``, the embedding the classifier reads, ``"all"`` depths, or the ``"maps"`` that they pool.

    Raises:
        InputError: a value out of range; when called, a view that knows no start (see ``latentdc.source.Started``).

    *Reference:* Zhao and Bilen 2022, "Synthesizing Informative Training Samples with GAN", arXiv 2204.07513, §3.2.
    *Differs from the authors' code:* their training code is not public. Form and scale of the term are ours.
    """

    needs_start = True
    cite: ClassVar[tuple[str, ...]] = ("zhao2022itgan",)

    def __init__(self, weight: float = 0.1, layer: str = "last") -> None:
        super().__init__(weight)
        self.see = Features(layer=layer)
        self.needs = self.see.needs

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Weighted sum over the classes present of their mean squared distances."""
        begun: Callable[[Batch], Batch] | None = getattr(view, "begun", None)
        if begun is None:
            raise InputError(
                "the pairwise penalty compares images with the real ones that their rows started from, which this "
                "source does not know: give condense latentdc.source.Started(source, start)."
            )
        real = self.see(view.net, view.augment(begun(syn)), differentiable=False)
        shown = self.see(view.net, view.augment(syn), differentiable=True)
        with torch.autocast(syn.x.device.type, enabled=False):
            gaps = torch.stack([(a - b).square().sum(1) for a, b in zip(shown, real, strict=True)]).sum(0)  # (n,)
            means, _ = class_means(gaps[:, None], syn.owner, syn.y.shape[1], syn.w)
            return self.weight * means.sum()
