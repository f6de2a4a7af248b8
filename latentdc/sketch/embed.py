"""One pair of a sketch: every image seen once under it, summed or clustered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from latentdc.data.augment import Augment, AugmentDraw
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Discrepancy, Summary
from latentdc.discrepancies.base import exact_sums
from latentdc.networks import Network
from latentdc.networks.compiled import Observe, Observed, precision_context
from latentdc.representations import Additive, Representation, rows_of, seen_together
from latentdc.sketch.landmarks import landmarks
from latentdc.types import Batch


def look_of(see: Representation) -> Representation:
    """What is added up: of parameters what they are means of, else ``see`` itself."""
    return see.summed if isinstance(see, Additive) else see


def has_lengths(see: Representation, by: Discrepancy, num: int | None) -> bool:
    """Whether kernel lengths are kept: for sums that are taken with them, or for ``num`` landmarks to be."""
    if see.kind != "points" or not (by.calibrated or num):
        return False
    return by.lengths(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), 1) is not None


class Term(NamedTuple):
    """A look at the real set, and how its numbers are kept."""

    see: Representation
    by: Discrepancy
    num_landmarks: int | None
    """Weighted points that stand for a class; None for sums."""

    @property
    def form(self) -> str:
        """``"landmarks"``, sums of ``"points"``, or sums of ``"parameters"``."""
        return self.see.kind if self.num_landmarks is None else "landmarks"

    @property
    def keeps_lengths(self) -> bool:
        """Whether it keeps kernel lengths."""
        return has_lengths(*self)


Seen = tuple[Tensor, Tensor | None, tuple[Tensor, ...]]
"""Class and weight of each row, and its numbers, one tensor a layer."""


@dataclass(frozen=True)
class Embedder:
    """Tensors of one pair after another, by their names in a file and without the axis of pairs (see ``Held``).

    Terms kept as sums of points share a pass of the network over the images, and those kept as landmarks another, for
    which the points of a class are held for all of them at once.
    """

    store: ClassStore
    augment: Augment
    terms: tuple[Term, ...]
    run: Observe | None
    """How networks are run; None for as they are."""
    precision: str
    batch_size: int
    device: torch.device

    @property
    def passes(self) -> list[list[int]]:
        """Which terms are embedded together; parameters each in a pass of its own."""
        forms = [term.form for term in self.terms]
        alone = [[i] for i, form in enumerate(forms) if form == "parameters"]
        shared = [[i for i, form in enumerate(forms) if form == wanted] for wanted in ("points", "landmarks")]
        return [group for group in (*shared, *alone) if group]

    def lengths(self, net: Network, draws: list[AugmentDraw], rows: Tensor) -> list[list[Tensor]]:
        """Kernel lengths ``(k,)`` of each layer of each term, from some images; empty where it keeps none."""
        found: list[list[Tensor]] = [[] for _ in self.terms]
        asked = [i for i, term in enumerate(self.terms) if term.keeps_lengths]
        owner, seen = self._points(asked, net, draws, rows)
        for i, layers in zip(asked, seen, strict=True):
            of_layers = [self.terms[i].by.lengths(points, owner, self.store.spec.num_classes) for points in layers]
            found[i] = [lengths.double().cpu() for lengths in of_layers if lengths is not None]
        return found

    def pair(
        self,
        net: Network,
        draws: list[AugmentDraw],
        rows: Tensor,
        scales: list[list[Tensor]],
        advance: Callable[[int], object],
        rng: Callable[[int], torch.Generator],
    ) -> list[dict[str, Tensor]]:
        """What each term holds of a pair, with kernel lengths ``scales``: sums or landmarks.

        Sums: ``counts`` ``(k,)``, ``sums.L`` ``(k, d)`` or, of parameters, ``(k, o, d)``, ``scales.L`` ``(k,)``.
        Landmarks: ``counts`` ``(k,)``, ``sums.L`` ``(k, m, d)``, ``masses.L`` ``(k, m)``, ``scales.L`` ``(k,)``.
        """
        held = [{f"scales.{layer}": scale for layer, scale in enumerate(of_term)} for of_term in scales]
        for group in self.passes:
            if self.terms[group[0]].form == "landmarks":
                self._cluster(group, held, net, draws, rows, advance, rng)
            else:
                self._add_up(group, held, net, draws, rows, advance)
        return held

    def _add_up(
        self,
        group: list[int],
        held: list[dict[str, Tensor]],
        net: Network,
        draws: list[AugmentDraw],
        rows: Tensor,
        advance: Callable[[int], object],
    ) -> None:
        for num, seen in self._seen(group, net, draws, rows):
            for i, (owner, w, layers) in zip(group, seen, strict=True):
                # Images come class by class, so a batch concerns few of them.
                first, last = int(owner[0]), int(owner[-1]) + 1
                for layer, points in enumerate(layers):
                    scale = held[i].get(f"scales.{layer}")
                    scale = None if scale is None else scale.to(self.device)[first:last]
                    part = self._summary(self.terms[i], points, owner - first, last - first, w, scale)
                    added = {f"sums.{layer}": part.values} | ({} if layer else {"counts": part.counts})
                    for name, value in added.items():
                        shape = (self.store.spec.num_classes, *value.shape[1:])
                        held[i].setdefault(name, torch.zeros(shape, dtype=torch.float64))[first:last] += value.cpu()
            advance(num)

    def _cluster(
        self,
        group: list[int],
        held: list[dict[str, Tensor]],
        net: Network,
        draws: list[AugmentDraw],
        rows: Tensor,
        advance: Callable[[int], object],
        rng: Callable[[int], torch.Generator],
    ) -> None:
        labels, k = self.store.labels[rows].cpu(), self.store.spec.num_classes
        counts = torch.bincount(labels, minlength=k)
        for i in group:
            held[i]["counts"] = counts.double()
        for cls in torch.unique(labels).tolist():
            _, seen = self._points(group, net, draws, rows[labels == cls])
            for i, layers in zip(group, seen, strict=True):
                num, drawn = self.terms[i].num_landmarks, rng(cls)
                assert num is not None
                for layer, points in enumerate(layers):
                    sums, masses = landmarks(points.cpu(), num, drawn)
                    for name, value in {f"sums.{layer}": sums, f"masses.{layer}": masses}.items():
                        empty = value.new_zeros(k, min(num, int(counts.max())), *value.shape[1:])
                        held[i].setdefault(name, empty)[cls, : len(value)] = value
            advance(int(counts[cls]))

    def _seen(
        self, group: list[int], net: Network, draws: list[AugmentDraw], rows: Tensor
    ) -> Iterator[tuple[int, list[Seen]]]:
        """Some images a batch at a time: their number, and what each term of a group looks at."""
        looks = [look_of(self.terms[i].see) for i in group]
        of_points = looks[0].kind == "points"
        # Parameters are seen class by class, of which a batch holds parts of any size: each would be compiled anew.
        observed = Observed(net, self.run) if self.run is not None and of_points else net
        for part in torch.split(rows, self.batch_size):
            # A short last batch is filled up: a compiled network then meets one shape only. Means would change.
            short = self.batch_size - len(part) if of_points and len(rows) > self.batch_size else 0
            batch = self.store.batch(torch.cat([part, part[:1].expand(short)]) if short else part)
            batch = Batch(batch.x.to(self.device), batch.y.to(self.device), batch.owner.to(self.device))
            batch = batch._replace(x=self.augment.apply(batch.x, draws, self.store.spec))
            found: list[Seen] = []
            with torch.no_grad(), precision_context(self.precision, self.device):
                shown = seen_together(looks, observed, batch)
            for look, layers in zip(looks, shown, strict=True):
                owner, w = rows_of(look, batch)
                num = len(part) if of_points else len(owner)
                found.append((owner[:num], w, tuple(points[:num].float() for points in layers)))
            yield len(part), found

    def _points(
        self, group: list[int], net: Network, draws: list[AugmentDraw], rows: Tensor
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Classes ``(n,)`` of some images and, for each term of a group, points per layer ``(n, d)``."""
        batches = [seen for _, seen in self._seen(group, net, draws, rows)]
        owner = torch.cat([seen[0][0] for seen in batches])
        of_terms = zip(*batches, strict=True)
        return owner, [
            [torch.cat(layer) for layer in zip(*(layers for _, _, layers in term), strict=True)] for term in of_terms
        ]

    @staticmethod
    def _summary(
        term: Term, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None, scale: Tensor | None
    ) -> Summary:
        if term.see.kind == "points":
            return term.by.summarise(points, owner, num_classes, scale=scale)
        return Summary(*exact_sums(points, owner, num_classes, w))
