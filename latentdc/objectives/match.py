"""Match what a network sees of the two sets, as measured by a discrepancy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latentdc.discrepancies import Discrepancy, Summary
from latentdc.errors import InputError, RecipeError
from latentdc.objectives.base import Objective
from latentdc.representations import Representation, needs_of, rows_of, scope_of
from latentdc.source import Look, View
from latentdc.types import Batch


class Match(Objective):
    """``Σ_l weight_l · by( real under (ψ, ω), see_l(ψ, ω(syn)) )``, a sum over classes too.

    Args:
        see: what of the network is looked at.
        by: the discrepancy.
        weights: one for each tensor that ``see`` shows, a single one for all of them, or none for ones.

    Raises:
        RecipeError: the discrepancy does not accept what the representation shows.
        InputError: a weight that is negative or not finite, or none above 0; when called, another number of weights
            than of tensors.
    """

    def __init__(self, see: Representation, by: Discrepancy, weights: tuple[float, ...] = ()) -> None:
        super().__init__()
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise InputError(f"weights = {list(weights)}: give finite numbers of at least 0.")
        if weights and not any(weights):
            raise InputError(f"weights = {list(weights)}: nothing would be matched; give at least one above 0.")
        if see.kind not in by.accepts:
            kinds = ", ".join(sorted(by.accepts))
            raise RecipeError(
                f"{type(see).__name__} shows {see.kind}, but {type(by).__name__} accepts {kinds}; choose another one"
            )
        self.see = see
        self.by = by
        self.weights = tuple(weights)
        self.scope = scope_of(see)
        self.needs = needs_of(see)

    @property
    def looks(self) -> tuple[Look, ...]:
        """The one there is."""
        return (Look(self.see, self.by),)

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Discrepancy of the synthetic images to the view's real side."""
        classes = torch.unique(syn.owner).tolist()
        layers = self.see(view.net, view.augment(syn), differentiable=True)
        (real,) = view.real(self.looks, classes)
        return self.measure(real, layers, syn)

    def measure(self, real: Sequence[Summary], layers: Sequence[Tensor], syn: Batch) -> Tensor:
        """Discrepancy of what was seen of the synthetic images, layer by layer, to summaries of the real ones."""
        # Distances of features are small differences of large numbers: never in half precision.
        with torch.autocast(syn.x.device.type, enabled=False):
            owner, w = rows_of(self.see, syn)
            gaps = [self.by(summary, points, owner, w) for summary, points in zip(real, layers, strict=True)]
            return torch.stack(self._weighed(gaps)).sum()

    def _weighed(self, gaps: list[Tensor]) -> list[Tensor]:
        if not self.weights:
            return gaps
        weights = self.weights * len(gaps) if len(self.weights) == 1 else self.weights
        if len(weights) != len(gaps):
            raise InputError(
                f"objective.weights = {list(weights)}: what is looked at shows {len(gaps)} tensors; give as many "
                "weights, or one for all."
            )
        return [weight * gap for weight, gap in zip(weights, gaps, strict=True)]
