"""A discrepancy of your own: compare means and second moments of the features, from a sketch of the whole set.

Run: python examples/own_discrepancy.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc import Match, open_data
from latentdc.condense import Optim, condense
from latentdc.data.augment import DSA
from latentdc.decoders.reference import resolve_decoder
from latentdc.discrepancies import Discrepancy, Summary
from latentdc.discrepancies.base import class_means, class_sums, must_cover
from latentdc.initialise import initialise
from latentdc.networks import FixedPool
from latentdc.portable.bank import LatentBank
from latentdc.representations import Features
from latentdc.sketch import sketch


@dataclass(frozen=True)
class TwoMoments(Discrepancy):
    """Squared distance between class means of (x, weight · x²): sums only, so a sketch can hold the real side."""

    sketchable: ClassVar[bool] = True
    weight: float = 0.1

    def _lift(self, points: Tensor) -> Tensor:
        return torch.cat([points, self.weight * points.square()], 1)  # (n, 2 d)

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums (k, 2 d) and counts (k,)."""
        del scale
        with torch.no_grad():
            return Summary(*class_sums(self._lift(points.double()), owner, num_classes, w))

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the classes present."""
        means, present = class_means(self._lift(points), owner, len(real.counts), w)
        must_cover(real, present)
        return ((means - real.mean.to(points.dtype)) * present[:, None]).square().sum()


def main(
    *, data: str = "fashion-mnist-mini", limit: int = 200, pairs: int = 8, steps: int = 60, width: int = 32
) -> LatentBank:
    """Condense one image per class into standardised pixels."""
    train = open_data(data, limit=limit).train
    see, by = Features(), TwoMoments()
    seen = sketch(train, FixedPool("convnet", train.spec, seed=0, num=pairs, width=width), DSA(), see, by, seed=0)
    print(f"sketch of {len(train)} images under {seen.num_pairs} pairs: {seen.num_bytes:,} bytes")

    decoder = resolve_decoder("pixels", train.spec)
    bank = initialise("real", decoder, [1] * train.spec.num_classes, seed=0, store=train)
    return condense(decoder, bank, Match(see, by), seen, steps=steps, optim=Optim(kind="adam", lr=0.05), seed=0)


if __name__ == "__main__":
    main()
