"""Match what a network sees of the two sets, as measured by a discrepancy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentdc.discrepancies import Discrepancy, Summary
from latentdc.errors import RecipeError
from latentdc.objectives.base import Objective
from latentdc.representations import Representation, rows_of, scope_of
from latentdc.source import View
from latentdc.types import Batch


class Match(Objective):
    """``by( real under (ψ, ω), see(ψ, ω(syn)) )``, summed over layers and classes.

    Args:
        see: what of the network is looked at.
        by: the discrepancy.

    Raises:
        RecipeError: the discrepancy does not accept what the representation shows.
    """

    def __init__(self, see: Representation, by: Discrepancy) -> None:
        super().__init__()
        if see.kind not in by.accepts:
            kinds = ", ".join(sorted(by.accepts))
            raise RecipeError(
                f"{type(see).__name__} shows {see.kind}, but {type(by).__name__} accepts {kinds}; choose another one"
            )
        self.see = see
        self.by = by
        self.scope = scope_of(see)

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Discrepancy of the synthetic images to the view's real side."""
        classes = torch.unique(syn.owner).tolist()
        layers = self.see(view.net, view.augment(syn), differentiable=True)
        return self.measure(view.real(self.see, self.by, classes), layers, syn)

    def measure(self, real: Sequence[Summary], layers: Sequence[Tensor], syn: Batch) -> Tensor:
        """Discrepancy of what was seen of the synthetic images, layer by layer, to summaries of the real ones."""
        # Distances of features are small differences of large numbers: never in half precision.
        with torch.autocast(syn.x.device.type, enabled=False):
            owner, w = rows_of(self.see, syn)
            return torch.stack(
                [self.by(summary, points, owner, w) for summary, points in zip(real, layers, strict=True)]
            ).sum()
