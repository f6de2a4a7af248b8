"""Sources: what one condensation step sees of the real set. ``Minibatches`` computes it; a ``Sketch`` looks it up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from latentdc.data.augment import Augment, AugmentDraw
from latentdc.data.sampling import Sampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Discrepancy, Summary
from latentdc.errors import InputError
from latentdc.networks import Pool
from latentdc.representations import Representation, rows_of, seen_together
from latentdc.seeding import stream
from latentdc.types import Batch, DataSpec, Net

_MOST_ROWS = 512
"""Real images a network sees at a time: they carry no graph, so parts bound the memory and change nothing else."""
_SAMPLER = "sampler/"


class Look(NamedTuple):
    """What of a network is looked at, and how two sets of it are compared."""

    see: Representation
    by: Discrepancy


class View(Protocol):
    """One step's real side, whole: network ψ, augmentation draw ω, keyed randomness and the real set under them."""

    step: int
    """The step the view belongs to."""
    net: Net
    """ψ: in eval mode, its parameters without gradients; the loop may put a compiled way to run it in its place."""

    def rng(self, purpose: str, cls: int = 0) -> torch.Generator:
        """A generator that depends on the source's seed, the purpose, the step and the class only."""
        ...

    def augment(self, batch: Batch) -> Batch:
        """The batch under ω, the same on both sides; differentiable."""
        ...

    def real(self, looks: Sequence[Look], classes: Sequence[int]) -> tuple[tuple[Summary, ...], ...]:
        """For each look the summaries of the real set under (ψ, ω), one per tensor that it shows.

        Their class axis has all k classes, of which at least ``classes`` are filled. Looks at points that are asked for
        together share a pass.
        """
        ...

    def batch(self, classes: Sequence[int]) -> Batch:
        """Real images of some classes, not augmented.

        Raises:
            InputError: the source holds no images.
        """
        ...


class Source(Protocol):
    """Supplies a view for every step; equal for equal (seed, step) on any rank and after any resume."""

    spec: DataSpec

    def view(self, step: int) -> View:
        """The real side of one step."""
        ...

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """After a step, all ranks alike: sources whose networks train do so here; ``decode`` gives the set as it is."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """What identifies the source and, if it changes over time, its state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore or check a saved state.

        Raises:
            BundleError: it belongs to another source.
        """
        ...

    def to(self, device: torch.device | str) -> Source:
        """Hand out networks and summaries on this device from now on; returns itself."""
        ...


class Minibatches:
    """The real side computed afresh each step from a mini-batch, with one augmentation draw per class and step.

    Args:
        store: the real images.
        sampler: draws real images.
        pool: supplies ψ.
        augment: supplies ω; what would change a label of this data set is left out of it.
        seed: the run's seed.
        num_per_class: real images per class and step; None is the sampler's own number.
    """

    def __init__(
        self,
        store: ClassStore,
        sampler: Sampler,
        pool: Pool,
        augment: Augment,
        *,
        seed: int,
        num_per_class: int | None = None,
    ) -> None:
        self.spec, self.sampler, self.pool = store.spec, sampler, pool
        self.augment = augment.for_data(store.spec)
        self.seed, self.num_per_class = seed, num_per_class
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Minibatches:
        """Compute on this device from now on; returns itself."""
        self.device = self.sampler.device = torch.device(device)
        self.pool.to(device)
        return self

    def view(self, step: int) -> MinibatchView:
        """The real side of one step; images are drawn when first asked for."""
        return MinibatchView(self, step)

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """Let the pool advance."""
        self.pool.advance(step, decode)

    def state_dict(self) -> dict[str, Any]:
        """The states of pool and sampler."""
        sampled = {f"{_SAMPLER}{name}": value for name, value in self.sampler.state_dict().items()}
        return {**self.pool.state_dict(), **sampled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the states of pool and sampler."""
        own = {name.removeprefix(_SAMPLER): value for name, value in state.items() if name.startswith(_SAMPLER)}
        self.pool.load_state_dict({name: value for name, value in state.items() if not name.startswith(_SAMPLER)})
        self.sampler.load_state_dict(own)


class MinibatchView:
    """View of a mini-batch; see ``View``."""

    def __init__(self, source: Minibatches, step: int) -> None:
        self.source, self.step = source, step
        self.net: Net = source.pool.at(step)
        source.sampler.begin(step, lambda cls: self.rng("sampler", cls), self.net)
        self._drawn: dict[int, list[AugmentDraw]] = {}
        self._batches: dict[tuple[int, ...], Batch] = {}

    def rng(self, purpose: str, cls: int = 0) -> torch.Generator:
        """A generator that depends on the source's seed, the purpose, the step and the class only."""
        return stream(self.source.seed, purpose, self.step, cls)

    def augment(self, batch: Batch) -> Batch:
        """The batch under this step's ω of each row's class."""
        spec, augment = self.source.spec, self.source.augment
        groups = [(int(c), (batch.owner == c).nonzero().flatten()) for c in torch.unique(batch.owner)]
        parts = []
        for cls, rows in groups:
            if cls not in self._drawn:
                self._drawn[cls] = augment.draw(1, spec.image_shape, self.rng("augment", cls), shared=True)
            parts.append(augment.apply(batch.x[rows], self._drawn[cls], spec))
        back = torch.argsort(torch.cat([rows for _, rows in groups]))
        return batch._replace(x=torch.cat(parts)[back])

    def batch(self, classes: Sequence[int]) -> Batch:
        """This step's real images of some classes, drawn once per view."""
        wanted = tuple(sorted(classes))
        if wanted not in self._batches:
            source = self.source
            drawn = source.sampler(wanted, source.num_per_class, lambda cls: self.rng("real", cls), self.net)
            device = source.device
            moved = [None if part is None else part.to(device, non_blocking=True) for part in drawn]
            self._batches[wanted] = Batch(*moved)  # type: ignore[arg-type]
        return self._batches[wanted]

    def real(self, looks: Sequence[Look], classes: Sequence[int]) -> tuple[tuple[Summary, ...], ...]:
        """Summaries of this step's real images of ``classes``."""
        batch, num_classes = self.batch(classes), self.source.spec.num_classes
        with torch.no_grad():
            return _summarised(looks, self.net, self.augment(batch), num_classes)


class Started:
    """Any source, whose views know besides which real images the stored rows started from.

    Args:
        source: the real side: mini-batches, a sketch or another.
        start: the real image of every image that the rows make, row after row ``(s * expands, c, h, w)``.
        expands: images that a row makes.
    """

    def __init__(self, source: Source, start: Tensor, expands: int = 1) -> None:
        self.source, self.start, self.expands, self.spec = source, start, expands, source.spec

    def to(self, device: torch.device | str) -> Started:
        """Hand out everything on this device from now on; returns itself."""
        self.source.to(device)
        self.start = self.start.to(device)
        return self

    def view(self, step: int) -> StartedView:
        """The source's view, with the start."""
        return StartedView(self, self.source.view(step))

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """Let the source advance."""
        self.source.advance(step, decode)

    def state_dict(self) -> Mapping[str, Any]:
        """The source's state; the start follows from recipe and data."""
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the source's state."""
        self.source.load_state_dict(state)


class StartedView:
    """View of a source, with the real images that the rows started from; see ``View``."""

    def __init__(self, source: Started, view: View) -> None:
        self.source, self.inner, self.step = source, view, view.step
        self.rng, self.augment, self.real, self.batch = view.rng, view.augment, view.real, view.batch

    @property
    def net(self) -> Net:
        """ψ, the one that the view underneath runs on both sides."""
        return self.inner.net

    @net.setter
    def net(self, net: Net) -> None:
        """Put a compiled way to run it in its place."""
        self.inner.net = net

    def begun(self, syn: Batch) -> Batch:
        """Synthetic images exchanged for the real ones they started as; not augmented.

        Raises:
            InputError: the batch does not say which rows its images came from.
        """
        if syn.row is None:
            raise InputError("the batch does not say which stored rows its images came from: give its row.")
        # A formation makes its images row by row, so that an image's number among its row's is its place's remainder.
        place = torch.arange(len(syn.row), device=syn.row.device) % self.source.expands
        return syn._replace(x=self.source.start[syn.row * self.source.expands + place].to(syn.x.dtype))


def _summarised(looks: Sequence[Look], net: Net, batch: Batch, num_classes: int) -> tuple[tuple[Summary, ...], ...]:
    """Summaries of a whole batch for each look; those of points see at most ``_MOST_ROWS`` images at a time.

    What adds up is added up part by part, so that no more points are held than of one part.
    """
    found: list[tuple[Summary, ...]] = [()] * len(looks)
    held: dict[int, list[tuple[Tensor, ...]]] = {}
    shared = [place for place, (see, _) in enumerate(looks) if see.kind == "points"]
    for place, look in enumerate(looks):
        if place not in shared:
            found[place] = _summaries(look, look.see(net, batch, differentiable=False), batch, num_classes)
    for part, num in _parts(batch) if shared else ():
        own = part.at(slice(num))
        for place, layers in zip(shared, seen_together([looks[i].see for i in shared], net, part), strict=True):
            points = tuple(layer[:num] for layer in layers)
            if looks[place].by.adds_up:
                more = _summaries(looks[place], points, own, num_classes)
                found[place] = tuple(a + b for a, b in zip(found[place], more, strict=True)) if found[place] else more
            else:
                held.setdefault(place, []).append(points)
    for place, parts in held.items():
        whole = [torch.cat(layer) for layer in zip(*parts, strict=True)]
        found[place] = _summaries(looks[place], whole, batch, num_classes)
    return tuple(found)


def _summaries(look: Look, layers: Sequence[Tensor], batch: Batch, num_classes: int) -> tuple[Summary, ...]:
    """Of what a look shows of a batch, one for each tensor."""
    with torch.autocast(batch.x.device.type, enabled=False):
        owner, w = rows_of(look.see, batch)
        return tuple(look.by.summarise(points, owner, num_classes, w) for points in layers)


def _parts(batch: Batch) -> Iterator[tuple[Batch, int]]:
    """Of equal size, and how many of each count: the last one is filled up for a compiled network's one shape."""
    num = max(1, math.ceil(len(batch.x) / _MOST_ROWS))
    size = math.ceil(len(batch.x) / num)
    for start in range(0, num * size, size):
        rows = torch.arange(start, start + size, device=batch.x.device)
        yield batch.at(rows % len(batch.x)), int((rows < len(batch.x)).sum())
