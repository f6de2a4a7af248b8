"""The sketch: sums and counts of what the whole real set shows under fixed (network, augmentation draw) pairs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentdc.data import augment as augmentation
from latentdc.data.augment import Augment, AugmentDraw
from latentdc.discrepancies import Discrepancy, Summary
from latentdc.errors import BundleError, InputError
from latentdc.networks import FixedPool, Network, described_pool, fingerprint
from latentdc.representations import Representation
from latentdc.seeding import stream
from latentdc.sketch.files import read, write
from latentdc.sketch.held import Held
from latentdc.sketch.kept import Kept
from latentdc.sketch.manifest import Manifest, augmentation_of, describe, loads, must_be_sketchable
from latentdc.source import Look
from latentdc.types import Batch, DataSpec, Net


class Sketch:
    """The real side of condensation as one file: a ``Source`` that touches no real image.

    Sums are additive, so sketches merge and subtract; those of landmarks only merge. ``view(step)`` walks a seeded
    permutation of the pairs and supplies the pair's network and augmentation draw together. Networks are rebuilt from
    their seed when first needed and compared with the sha256 recorded when the sketch was taken.

    Args:
        manifest: what was sketched and how.
        held: the numbers.
        augment: the augmentation; looked up by the manifest's name, when first needed, if None.
        pool: the networks; rebuilt from the manifest if None.
    """

    def __init__(
        self,
        manifest: Manifest,
        held: Held,
        *,
        augment: Augment | None = None,
        pool: FixedPool | None = None,
    ) -> None:
        self.manifest, self.held, self._kept = manifest, held, Kept(held)
        self.spec: DataSpec = manifest.spec
        self.pool = pool or described_pool(manifest.pool, self.spec)
        self._augment = augment
        self.device = torch.device("cpu")
        self._draws: dict[int, list[AugmentDraw]] = {}
        self._known: set[int] = set()
        self._accepted: dict[tuple[int, int], int] = {}
        self._kept_parts: list[object] = []

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """Sums of each layer; see ``Held``."""
        return self.held.sums

    @property
    def counts(self) -> Tensor:
        """Images summed ``(pairs, k)``, float64."""
        return self.held.counts

    @property
    def scales(self) -> tuple[Tensor, ...]:
        """Squared kernel lengths of each layer ``(pairs, k)``, or none."""
        return self.held.scales

    @property
    def augment(self) -> Augment:
        """The augmentation.

        Raises:
            BundleError: it is somebody's own and was not given.
        """
        self._augment = self._augment or augmentation_of(self.manifest.augment)
        return self._augment

    def offer(self, augment: Augment, pool: FixedPool | None = None) -> None:
        """Take an augmentation, perhaps somebody's own, if it is the one that the sketch was taken with.

        And networks, which lie elsewhere than when it was taken; that they are the same is checked in any case.
        """
        self._augment = augment if describe(augment) == self.manifest.augment else self._augment
        if pool is not None:
            self.pool, self._known = pool.to(self.device), set()

    @property
    def num_pairs(self) -> int:
        """Number of (network, augmentation draw) pairs."""
        return self.manifest.num_pairs

    @property
    def whole(self) -> bool:
        """Whether it is of one data set as it was opened, and not a sum or difference of several."""
        return len(self.manifest.history) == 1

    @property
    def num_bytes(self) -> int:
        """Bytes of the stored numbers (the file adds its manifest)."""
        return self.held.num_bytes

    def pair(self, step: int) -> int:
        """Which pair a step sees: entry ``step % pairs`` of the permutation of round ``step // pairs``."""
        turn, position = divmod(step, self.num_pairs)
        return _walk(self.manifest.seed, turn, self.num_pairs)[position]

    def network(self, pair: int) -> Network:
        """The network of a pair.

        Raises:
            BundleError: rebuilt on this machine it is not the one that was sketched.
        """
        index = pair % self.pool.num
        net = self.pool.network(index)
        if index not in self._known:
            if fingerprint(net) != self.manifest.fingerprints[index]:
                raise BundleError(
                    f"network {index} of the sketch, loaded or rebuilt here, is not the one it was taken with "
                    f"({self.pool.if_another})"
                )
            self._known.add(index)
        return net

    def draws(self, pair: int) -> list[AugmentDraw]:
        """Augmentation parameters of a pair."""
        if pair not in self._draws:
            self._draws[pair] = augmentation.load(self.manifest.draws[pair])
        return self._draws[pair]

    def term(self, see: Representation, by: Discrepancy) -> int:
        """Which of the sketch's terms is of this representation and discrepancy.

        Raises:
            InputError: none; the message says what differs.
        """
        if (id(see), id(by)) not in self._accepted:
            asked, looks = {"see": describe(see), "by": describe(by)}, self.manifest.looks
            if asked not in looks:
                if len(looks) == 1:
                    must_be_sketchable(see, by, self.manifest.landmarks)
                other = dataclasses.replace(self.manifest, see=asked["see"], by=asked["by"])
                told = "; or ".join(
                    "; ".join(dataclasses.replace(self.manifest, see=its["see"], by=its["by"]).differences(other))
                    for its in looks
                )
                raise InputError(f"the sketch was taken for another objective: {told}. Make one for this")
            self._kept_parts += [see, by]  # keeps the ids from being given to other objects
            self._accepted[id(see), id(by)] = looks.index(asked)
        return self._accepted[id(see), id(by)]

    def view(self, step: int) -> SketchView:
        """The real side of one step."""
        return SketchView(self, step)

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """Nothing changes over time."""

    def state_dict(self) -> dict[str, Any]:
        """What identifies the sketch."""
        return {"kind": "Sketch", "manifest": self.manifest.digest()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that a run resumes from the sketch it began with.

        Raises:
            BundleError: it does not.
        """
        if dict(state) != self.state_dict():
            raise BundleError("the checkpoint belongs to a run on another sketch; give the sketch it began with")

    def to(self, device: torch.device | str) -> Sketch:
        """Hand out networks and summaries on this device from now on; returns itself."""
        self.device = torch.device(device)
        self.pool.to(device)
        self.held = self.held.to(device)
        self._kept = Kept(self.held)
        return self

    def merge(self, other: Sketch) -> Sketch:
        """Sketch of the union of two disjoint sets; of landmarks it holds those of both.

        Raises:
            InputError: the two were not taken alike, or share a set; the message says what differs.
        """
        return self._combine(other, 1)

    def subtract(self, other: Sketch) -> Sketch:
        """Sketch of this set without the other, which must be part of it.

        Raises:
            InputError: the two were not taken alike, the other has more images of some class, or they hold landmarks.
        """
        if any(held.masses for held in self.held.terms):
            raise InputError(
                "the sketches cannot be subtracted: a landmark stands for images of the whole set, and does not tell "
                "those to take away from the others. Merge sketches of the parts that remain"
            )
        if bool((self.counts < other.counts).any()):
            pair, cls = (self.counts < other.counts).nonzero()[0].tolist()
            raise InputError(
                f'class "{self.spec.class_names[cls]}" has {self.counts[pair, cls]:g} images in the sketch and '
                f"{other.counts[pair, cls]:g} in the one to subtract, which must be part of it"
            )
        return self._combine(other, -1)

    def _combine(self, other: Sketch, sign: int) -> Sketch:
        verb = "merged" if sign > 0 else "subtracted"
        wrong = self.manifest.differences(other.manifest)
        if self.manifest.images_per_pair is not None and sign < 0:
            wrong.append("each pair saw its own random subset, so one is no part of the other")
        lengths = [[scale for held in each.held.terms for scale in held.scales] for each in (self, other)]
        if not wrong and not all(torch.equal(a, b) for a, b in zip(*lengths, strict=True)):
            wrong.append("kernel lengths differ: take one with `like` set to the other")
        if wrong:
            raise InputError(f"the sketches cannot be {verb}: {'; '.join(wrong)}")
        manifest = self.manifest.combined(other.manifest, sign)
        return Sketch(manifest, self.held.combined(other.held, sign), augment=self._augment, pool=self.pool)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        write(path, self.held.tensors(), self.manifest.dumps())

    @staticmethod
    def load(path: str | Path, *, augment: Augment | None = None, pool: FixedPool | None = None) -> Sketch:
        """A sketch from its file.

        Args:
            path: the file.
            augment: the augmentation, when it is not one of latentdc's own.
            pool: the networks, when they are not one of latentdc's own.

        Raises:
            InputError: there is no such file.
            BundleError: the file is damaged, no sketch, or of another version.
        """
        tensors, text = read(path)
        return Sketch(loads(text), Held.of(tensors), augment=augment, pool=pool)


class SketchView:
    """View that looks the real set up; see ``View``."""

    def __init__(self, source: Sketch, step: int) -> None:
        self.source, self.step, self.pair = source, step, source.pair(step)
        self.net: Net = source.network(self.pair)

    def rng(self, purpose: str, cls: int = 0) -> torch.Generator:
        """A generator that depends on the sketch's seed, the purpose, the step and the class only."""
        return stream(self.source.manifest.seed, purpose, self.step, cls)

    def augment(self, batch: Batch) -> Batch:
        """The batch under the pair's ω, one for all classes."""
        return batch._replace(x=self.source.augment.apply(batch.x, self.source.draws(self.pair), self.source.spec))

    def real(self, looks: Sequence[Look], classes: Sequence[int]) -> tuple[tuple[Summary, ...], ...]:
        """The pair's summaries of ``classes``; of additive ones of all classes."""
        source = self.source
        with torch.autocast(source.device.type, enabled=False):
            return tuple(source._kept.summaries(source.term(see, by), self.pair, see, by, classes) for see, by in looks)

    def batch(self, classes: Sequence[int]) -> Batch:
        """There are no images in a sketch.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"real images of classes {list(classes)} were asked of a sketch, which holds none; use mini-batches instead"
        )


@functools.lru_cache(maxsize=2)
def _walk(seed: int, turn: int, num_pairs: int) -> list[int]:
    order: list[int] = torch.randperm(num_pairs, generator=stream(seed, "pairs", turn)).tolist()
    return order
