"""Real images that are hard but right: what a classifier is least sure of, where it does not contradict the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from latentdc.data.sampling import RngOf, Sampler
from latentdc.data.store import ClassStore
from latentdc.types import Batch, Net

LEAST = 0.4
"""Probability of its class below which an image is left out: it may be mislabelled."""


class HardSampler(Sampler):
    """A share of a draw from the hardest of the images whose label a classifier believes, the rest from all of these.

    With p the probability that the classifier gives to an image's own class: of the images of a class with p > 0.4 the
    share ``hardest`` of lowest p are the hard ones. Distinct within each part of a draw. A class of which fewer images
    than a draw are believed is not chosen from by belief.

    Args:
        store: the real images.
        num_per_class: images of each class in a draw.
        classifier: a trained network.
        share: of the draw, in [0, 1].
        hardest: share of the believed images that are the hard ones, in (0, 1].

    *Reference:* real images chosen by their loss before condensing: Moser et al. 2024, arXiv 2411.12115. Which ones,
    how many and the bound are ours.
    """

    cite: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, store: ClassStore, num_per_class: int, classifier: Net, *, share: float = 0.8, hardest: float = 0.25
    ) -> None:
        super().__init__(store, num_per_class)
        self.share = share
        self._believed: list[torch.Tensor] = []
        self._hard: list[torch.Tensor] = []
        sure = self._sure(classifier)
        for cls in range(store.spec.num_classes):
            rows = (store.labels == cls).nonzero().flatten()
            believed = rows[sure[rows] > LEAST]
            if len(believed) >= num_per_class:  # or the classifier knows too little of the class to choose
                rows = believed
            self._believed.append(rows)
            self._hard.append(rows[sure[rows].argsort(stable=True)[: max(1, round(hardest * len(rows)))]])

    def _sure(self, classifier: Net) -> torch.Tensor:
        """Probability of its own class for every image ``(n,)``."""
        found = torch.empty(len(self.store), device=self.store.labels.device)
        for part, seen in self._seen(classifier, torch.arange(len(self.store), device=found.device)):
            own = seen.logits.float().softmax(1).to(found.device).gather(1, self.store.labels[part, None])
            found[part] = own[:, 0]
        return found

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: RngOf, net: Net | None = None) -> Batch:
        """``num`` images of each class, the hard ones first; fewer where there are not as many."""
        del net
        rows = []
        for cls in classes:
            total, rng = self._num(cls, num), rng_of(cls)
            hard = min(round(self.share * total), len(self._hard[cls]))
            for pool, count in ((self._hard[cls], hard), (self._believed[cls], total - hard)):
                rows.append(pool[torch.randperm(len(pool), generator=rng)[:count].to(pool.device)])
        return self.store.batch(torch.cat(rows))
