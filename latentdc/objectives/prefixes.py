"""Match every prefix of a class's rows, so that one set serves every smaller budget."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies import Discrepancy
from latentdc.errors import InputError, RecipeError
from latentdc.objectives.match import Match
from latentdc.representations import Representation, scope_of
from latentdc.source import View
from latentdc.types import Batch


class Prefixes(Match):
    """The match of each class's first n rows, averaged over sizes n: ``Σ_c (1/|N_c|) Σ_{n ∈ N_c} D_c(S_c[1 … n])``.

    ``N_c`` holds the sizes asked for that are smaller than the class, and its whole size m_c; all of 1 … m_c if none
    are asked for, as in recipes. Rows come in the order of the bank, which is the one that its own prefixes take; all
    images that a formation makes of a row come with it. With no other size than the whole it is the plain match, and a
    mean in place of a sum keeps its learning rates.

    The network sees points once, whatever the sizes; of gradients each prefix has its own, at the price of a match of
    as many images. The discrepancy is then taken once for each size, for all classes of equal size together: of m rows
    a class m calls, on (m + 1) / 2 times the points.

    Args:
        see: what of the network is looked at.
        by: the discrepancy, any of them.
        weights: of the tensors that ``see`` shows; see ``Match``.
        sizes: rows per class that a smaller set is to have, each at least 1; None for every size.

    Raises:
        RecipeError: the discrepancy does not accept what the representation shows, or that mixes the classes.
        InputError: a size below 1; when called, a batch that does not say which rows its images came from.

    *Reference:* He et al. 2024, "Multisize Dataset Condensation", arXiv 2403.06075.
    *Differs from the authors' code:* there the whole is matched together with one smaller size at a time, chosen anew
    every 100 steps as the one whose distance fell most, and rows that a smaller size has learned are frozen; here all
    sizes are matched at every step and nothing is frozen.
    """

    orders = True
    cite: ClassVar[tuple[str, ...]] = ("he2024mdc",)

    def __init__(
        self,
        see: Representation,
        by: Discrepancy,
        weights: tuple[float, ...] = (),
        sizes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(see, by, weights)
        if scope_of(see) != "class":
            raise RecipeError(
                f'prefixes are those of a class, and {type(see).__name__} with scope = "{scope_of(see)}" mixes the '
                'classes: use scope = "class", or objective.kind = "match"'
            )
        if sizes is not None and (not sizes or min(sizes) < 1):
            raise InputError(f"sizes = {list(sizes)}: give numbers of rows of at least 1, or leave it out for all")
        self.sizes = sizes

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Mean over the sizes of the discrepancy of each class's first rows to the view's real side."""
        place, rows = _places(syn)
        shown = view.augment(syn)
        (real,) = view.real(self.looks, torch.unique(syn.owner).tolist())
        points = self.see(view.net, shown, differentiable=True) if self.see.kind == "points" else None
        losses = []
        for most in torch.unique(rows).tolist():
            sizes = {size for size in self.sizes or range(1, most) if size < most} | {most}
            for size in sorted(sizes):
                kept = ((rows == most) & (place < size)).nonzero().flatten()
                part = shown.at(kept)
                layers = [each[kept] for each in points] if points else self.see(view.net, part, differentiable=True)
                losses.append(self.measure(real, layers, part) / len(sizes))
        return torch.stack(losses).sum()


def _places(syn: Batch) -> tuple[Tensor, Tensor]:
    """For each image the place ``(n,)`` of its row among those of its class, from 0, and how many these are ``(n,)``.

    Raises:
        InputError: the batch does not say which rows its images came from.
    """
    if syn.row is None:
        raise InputError("the batch does not say which stored rows its images came from: give its row.")
    place, rows = torch.zeros_like(syn.row), torch.zeros_like(syn.row)
    for cls in torch.unique(syn.owner).tolist():
        mine = syn.owner == cls
        found, which = torch.unique(syn.row[mine], return_inverse=True)
        place[mine], rows[mine] = which, len(found)
    return place, rows
