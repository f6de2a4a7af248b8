"""Samplers draw the real mini-batches a condensation step compares with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.clusters import kmeans
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.types import EMBEDDING, Batch, Net, Observation

RngOf = Callable[[int], torch.Generator]
_AT_ONCE = 500
_NONE = torch.empty(0, dtype=torch.int64)


class Sampler:
    """Draws real images of some classes.

    Args:
        store: the real images.
        num_per_class: images of each class that a draw gives where no other number is asked for.

    Raises:
        InputError: fewer than one image per class.
    """

    cite: ClassVar[tuple[str, ...]] = ()
    needs_classifier: ClassVar[bool] = False
    """Whether it looks at class scores of the step's network, which not every network has."""

    def __init__(self, store: ClassStore, num_per_class: int = 256) -> None:
        if num_per_class < 1:
            raise InputError(f"num_per_class = {num_per_class}: give at least 1 image per class.")
        self.store, self.num_per_class = store, num_per_class
        self.device = torch.device("cpu")
        """Where the networks are that it is given; draws stay with the store."""

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: RngOf, net: Net) -> Batch:
        """``num`` images of each class (None: the sampler's own number), class after class.

        ``rng_of(cls)`` is the generator of one class, so a draw depends neither on other classes nor on their order;
        ``net`` is the step's network, which may show no more than embedding and class scores.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(classes, num, rng_of, net) -> Batch")

    def begin(self, step: int, rng_of: RngOf, net: Net) -> None:
        """Before the draws of a step, on every process alike: what later steps will need is looked at here."""

    @property
    def period(self) -> int:
        """Steps from one such look to the next; 0 for a sampler that takes none."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """What a draw depends on besides step and network: tensors and JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""

    def _seen(self, net: Net, rows: Tensor) -> Iterator[tuple[Tensor, Observation]]:
        """Embedding and class scores of stored images, a part at a time and without gradients."""
        for part in torch.split(rows, _AT_ONCE):
            with torch.no_grad():
                yield part, net.observe(self.store.batch(part).x.to(self.device)).only(EMBEDDING)

    def _num(self, cls: int, num: int | None) -> int:
        """A class with fewer images than asked gives all of them, as in the literature; statistics are per class."""
        return min(self.num_per_class if num is None else num, self.store.count(cls))


class UniformSampler(Sampler):
    """Distinct images, uniform within each class."""

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: RngOf, net: Net | None = None) -> Batch:
        """A batch of ``min(num, count)`` images of each class in ``classes``, in that order."""
        del net
        return self.store.batch(torch.cat([self.store.pick(c, self._num(c, num), rng_of(c)) for c in classes]))


class EasiestSampler(Sampler):
    """The images of a larger uniform draw on which the step's network has the least cross-entropy.

    Args:
        store: the real images.
        num_per_class: images of each class that a draw gives.
        candidates: images of each class among which it chooses.

    Raises:
        InputError: fewer candidates than images.

    *Reference:* Zhao et al. 2023 (IDM), CVPR, arXiv 2307.09742, the authors' code.
    *Differs from the authors' code:* there only one image a class without tiles is matched in this way, and 2,560 of
    5,000 are kept.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2023idm",)
    needs_classifier: ClassVar[bool] = True

    def __init__(self, store: ClassStore, num_per_class: int = 256, candidates: int = 5000) -> None:
        super().__init__(store, num_per_class)
        if candidates < num_per_class:
            raise InputError(f"candidates = {candidates}: give at least as many as num_per_class = {num_per_class}.")
        self.candidates = candidates

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: RngOf, net: Net) -> Batch:
        """The easiest images of each class, easiest first."""
        chosen = []
        for cls in classes:
            rows = self.store.pick(cls, min(self.candidates, self.store.count(cls)), rng_of(cls))
            losses = [
                functional.cross_entropy(seen.logits.float().cpu(), torch.full_like(part, cls), reduction="none")
                for part, seen in self._seen(net, rows)
            ]
            chosen.append(rows[torch.cat(losses).argsort(stable=True)[: self._num(cls, num)]])
        return self.store.batch(torch.cat(chosen))


class KMeansSampler(Sampler):
    """The images nearest to the centres of a k-means in the network's embedding, weighted by the mass of their cluster.

    The centres are found anew every ``every`` steps, by whatever network that step has, and the images kept in
    between. Weights ``w_j = n_j / n_c`` make the weighted mean of the images an estimate of the class mean; without
    them, as published, it is the mean of a class whose density was flattened.

    Args:
        store: the real images.
        num_per_class: clusters, and images, of each class.
        every: steps between two k-means.
        candidates: images of each class that a k-means looks at, a uniform draw; None for all.
        weighted: weigh images by the mass of their cluster.
        iterations: passes of a k-means.

    Raises:
        InputError: a value out of range.

    *Reference:* Liu et al. 2023 (DREAM), arXiv 2302.14416, §3.3.
    *Differs from the authors' code:* the weights; ``weighted = false`` leaves them out.
    """

    cite: ClassVar[tuple[str, ...]] = ("liu2023dream",)

    def __init__(
        self,
        store: ClassStore,
        num_per_class: int = 128,
        every: int = 10,
        candidates: int | None = None,
        weighted: bool = True,
        iterations: int = 10,
    ) -> None:
        super().__init__(store, num_per_class)
        for name, value in {"every": every, "candidates": candidates, "iterations": iterations}.items():
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}: give at least 1.")
        self.every, self.candidates, self.weighted, self.iterations = every, candidates, weighted, iterations
        self._rows: dict[int, Tensor] = {}
        self._mass: dict[int, Tensor] = {}

    @property
    def period(self) -> int:
        """``every``."""
        return self.every

    def begin(self, step: int, rng_of: RngOf, net: Net) -> None:
        """Find the centres of all classes when it is time to, or where a run begins."""
        if step % self.every and self._rows:
            return
        for cls in range(self.store.spec.num_classes):
            if self.store.count(cls):
                self._rows[cls], self._mass[cls] = self._cluster(cls, rng_of(cls), net)

    def __call__(self, classes: Sequence[int], num: int | None, rng_of: RngOf, net: Net) -> Batch:
        """The images nearest to the centres, heaviest cluster first."""
        del rng_of, net
        parts = [self._rows.get(cls, _NONE)[: self._num(cls, num)] for cls in classes]
        batch = self.store.batch(torch.cat(parts))
        if not self.weighted:
            return batch
        mass = [self._mass.get(cls, _NONE)[: len(part)] for cls, part in zip(classes, parts, strict=True)]
        return batch._replace(w=torch.cat(mass).to(batch.x))

    def state_dict(self) -> dict[str, Any]:
        """The images chosen last, and the mass of their clusters."""
        rows = {f"rows/{cls}": rows for cls, rows in self._rows.items()}
        return {**rows, **{f"mass/{cls}": mass for cls, mass in self._mass.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the images chosen before."""
        for target, prefix in ((self._rows, "rows/"), (self._mass, "mass/")):
            target |= {int(name.removeprefix(prefix)): each for name, each in state.items() if name.startswith(prefix)}

    def _cluster(self, cls: int, rng: torch.Generator, net: Net) -> tuple[Tensor, Tensor]:
        count = self.store.count(cls)
        rows = self.store.pick(cls, count if self.candidates is None else min(self.candidates, count), rng)
        points = torch.cat([seen.last.flatten(1).float().cpu() for _, seen in self._seen(net, rows)])
        centres = kmeans(points, min(self.num_per_class, len(rows)), rng, iterations=self.iterations)
        distance = torch.cdist(points, centres)
        mass = torch.bincount(distance.argmin(1), minlength=len(centres)) / len(rows)
        order = mass.argsort(descending=True, stable=True)
        order = order[mass[order] > 0]  # a cluster that lost all its points stands for none
        return rows[distance.argmin(0)[order]], mass[order]


SAMPLERS: dict[str, type[Sampler]] = {"uniform": UniformSampler, "kmeans": KMeansSampler, "easiest": EasiestSampler}
