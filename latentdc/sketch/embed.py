"""One pair of a sketch: every image seen once under it, summed or clustered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdc.data.augment import Augment, AugmentDraw
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Discrepancy, Summary
from latentdc.discrepancies.base import class_sums
from latentdc.networks import Network
from latentdc.networks.compiled import Observe, Observed, precision_context
from latentdc.representations import Additive, Representation, rows_of
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


@dataclass(frozen=True)
class Embedder:
    """Tensors of one pair after another, by their names in a file and without the axis of pairs (see ``Held``)."""

    store: ClassStore
    augment: Augment
    see: Representation
    by: Discrepancy
    num_landmarks: int | None
    """Weighted points that stand for a class; None for sums."""
    run: Observe | None
    """How networks are run; None for as they are."""
    precision: str
    batch_size: int
    device: torch.device

    def scales(self, net: Network, draws: list[AugmentDraw], rows: Tensor) -> list[Tensor]:
        """Kernel lengths ``(k,)`` of each layer from some images."""
        owner, layers = self._points(net, draws, rows)
        found = [self.by.lengths(points, owner, self.store.spec.num_classes) for points in layers]
        return [lengths.double().cpu() for lengths in found if lengths is not None]

    def sums(
        self,
        net: Network,
        draws: list[AugmentDraw],
        rows: Tensor,
        scales: list[Tensor],
        advance: Callable[[int], object],
    ) -> dict[str, Tensor]:
        """``counts`` ``(k,)``, ``sums.L`` ``(k, d)`` or, of parameters, ``(k, o, d)``, ``scales.L`` ``(k,)``."""
        held = {f"scales.{layer}": scale for layer, scale in enumerate(scales)}
        for num, owner, w, seen in self._seen(net, draws, rows):
            # Images come class by class, so a batch concerns few of them.
            first, last = int(owner[0]), int(owner[-1]) + 1
            for layer, points in enumerate(seen):
                scale = scales[layer].to(self.device)[first:last] if scales else None
                part = self._summary(points, owner - first, last - first, w, scale)
                for name, value in {f"sums.{layer}": part.values, "counts": part.counts}.items():
                    if name == "counts" and layer > 0:
                        continue
                    shape = (self.store.spec.num_classes, *value.shape[1:])
                    held.setdefault(name, torch.zeros(shape, dtype=torch.float64))[first:last] += value.cpu()
            advance(num)
        return held

    def landmarks(
        self,
        net: Network,
        draws: list[AugmentDraw],
        rows: Tensor,
        scales: list[Tensor],
        advance: Callable[[int], object],
        rng: Callable[[int], torch.Generator],
    ) -> dict[str, Tensor]:
        """``counts`` ``(k,)``, ``sums.L`` ``(k, m, d)``, ``masses.L`` ``(k, m)``, ``scales.L`` ``(k,)``."""
        num, labels, k = self.num_landmarks, self.store.labels[rows].cpu(), self.store.spec.num_classes
        assert num is not None
        counts = torch.bincount(labels, minlength=k)
        width = min(num, int(counts.max()))
        held = {"counts": counts.double(), **{f"scales.{layer}": scale for layer, scale in enumerate(scales)}}
        for cls in torch.unique(labels).tolist():
            drawn = rng(cls)
            _, layers = self._points(net, draws, rows[labels == cls])
            for layer, points in enumerate(layers):
                sums, masses = landmarks(points.cpu(), num, drawn)
                for name, value in {f"sums.{layer}": sums, f"masses.{layer}": masses}.items():
                    empty = value.new_zeros(k, width, *value.shape[1:])
                    held.setdefault(name, empty)[cls, : len(value)] = value
            advance(int(counts[cls]))
        return held

    def _seen(
        self, net: Network, draws: list[AugmentDraw], rows: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor | None, tuple[Tensor, ...]]]:
        """Some images a batch at a time: their number, and class, weight and numbers of each row that is looked at."""
        look = look_of(self.see)
        # Parameters are seen class by class, of which a batch holds parts of any size: each would be compiled anew.
        observed = net if self.run is None or look.kind == "parameters" else Observed(net, self.run)
        for part in torch.split(rows, self.batch_size):
            # A short last batch is filled up: a compiled network then meets one shape only. Means would change.
            filled = look.kind == "points" and len(rows) > self.batch_size
            short = self.batch_size - len(part) if filled else 0
            batch = self.store.batch(torch.cat([part, part[:1].expand(short)]) if short else part)
            batch = Batch(batch.x.to(self.device), batch.y.to(self.device), batch.owner.to(self.device))
            batch = batch._replace(x=self.augment.apply(batch.x, draws, self.store.spec))
            with torch.no_grad(), precision_context(self.precision, self.device):
                seen = look(observed, batch, differentiable=False)
            owner, w = rows_of(look, batch)
            num = len(part) if look.kind == "points" else len(owner)
            yield len(part), owner[:num], w, tuple(points[:num].float() for points in seen)

    def _points(self, net: Network, draws: list[AugmentDraw], rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Classes ``(n,)`` and points per layer ``(n, d)`` of some images."""
        _, owners, _, points = zip(*self._seen(net, draws, rows), strict=True)
        return torch.cat(owners), [torch.cat(layer) for layer in zip(*points, strict=True)]

    def _summary(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None, scale: Tensor | None
    ) -> Summary:
        if self.see.kind == "points":
            return self.by.summarise(points, owner, num_classes, scale=scale)
        return Summary(*class_sums(points.double(), owner, num_classes, w))
