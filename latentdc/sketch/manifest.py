"""What a sketch was taken of and how: two sketches may be combined, or used by a recipe, only if these agree."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from latentdc.data.augment import AUGMENTS, Augment
from latentdc.discrepancies import DISCREPANCIES, Discrepancy
from latentdc.errors import BundleError, InputError
from latentdc.representations import Additive, Representation
from latentdc.types import DataSpec

_VERSIONS = (1, 2, 3)
"""2 came with landmarks, 3 with several terms; a sketch without either is still of version 1."""
_PLAIN = ("see", "by", "plus", "pool", "augment", "seed", "num_pairs", "images_per_pair", "draws", "fingerprints")
_OF_DATA = ("image_shape", "class_names", "mean", "std")
_PLACES = ("pool.model", "pool.weights")
"""Where pretrained networks lie; which they are, their fingerprints say."""
_ENTRY = re.compile(r"([+-])(.*) (\S+) \(\d+ images\)", re.DOTALL)


def describe(part: object) -> dict[str, Any]:
    """A part's class name and fields as JSON would give them back."""
    fields = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else {}
    described: dict[str, Any] = json.loads(json.dumps({"part": type(part).__name__, **fields}))
    return described


def augmentation_of(described: dict[str, Any]) -> Augment:
    """The augmentation that ``describe`` described.

    Raises:
        BundleError: it is none of latentdc's own.
    """
    fields = dict(described)
    name = fields.pop("part")
    for part in AUGMENTS.values():
        if part.__name__ == name:
            return part(**fields)
    raise BundleError(
        f"the sketch was taken with the augmentation {name}, which is not latentdc's own; name it in the recipe "
        '(augment = "package.module:Class"), or pass augment='
    )


class Entry(NamedTuple):
    """A line of a history: a data set that was added or subtracted."""

    sign: int
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """Everything but the numbers of a sketch."""

    see: dict[str, Any]
    """The representation."""
    by: dict[str, Any]
    """The discrepancy."""
    pool: dict[str, Any]
    """Architecture, seed, number and width of the networks, or where pretrained ones lie."""
    augment: dict[str, Any]
    """The augmentation."""
    seed: int
    """Seed of the augmentation draws and of the walk through the pairs."""
    num_pairs: int
    """Number of (network, augmentation draw) pairs."""
    images_per_pair: int | None
    """Images of each class a pair saw; None for all."""
    draws: list[Any]
    """Augmentation parameters of each pair."""
    fingerprints: list[str]
    """sha256 of each network's initial values."""
    data: dict[str, Any]
    """The data set's description."""
    history: list[str]
    """Which data sets were added and subtracted, by name, fingerprint and number of images."""
    precision: str = "fp32"
    """Precision of the forward passes; sums are float64 in any case."""
    version: int = 1
    """Format version of the file."""
    landmarks: int | None = None
    """Most weighted points that stand for a class, of all parts together; None if sums were taken."""
    plus: list[dict[str, Any]] = field(default_factory=list)
    """``see`` and ``by`` of the objective's further terms."""

    @property
    def looks(self) -> list[dict[str, Any]]:
        """``see`` and ``by`` of every term."""
        return [{"see": self.see, "by": self.by}, *self.plus]

    @property
    def spec(self) -> DataSpec:
        """The data set's description."""
        given = dict(self.data)
        for name in _OF_DATA:
            given[name] = tuple(given[name])
        return DataSpec(**given)

    def differences(self, other: Manifest) -> list[str]:
        """What keeps two sketches from being combined, in words; empty if nothing does."""
        found = []
        for name in _PLAIN:
            found += _compare(name, getattr(self, name), getattr(other, name))
        for name in _OF_DATA:
            found += _compare(f"data.{name}", self.data[name], other.data[name])
        return found

    def combined(self, other: Manifest, sign: int) -> Manifest:
        """Of the sketch that remains when another one is added (``sign`` 1) or subtracted (-1).

        A set that is both added and subtracted leaves no trace, so ``(a + b) - b`` is again the sketch of ``a``.

        Raises:
            InputError: a set would be added, or subtracted, twice.
        """
        history = list(self.history)
        landmarks = None if self.landmarks is None else self.landmarks + (other.landmarks or 0)
        for line in other.history:
            theirs = entry(line)
            wanted = sign * theirs.sign
            same = [mine for mine in history if entry(mine).fingerprint == theirs.fingerprint]
            if any(entry(mine).sign == wanted for mine in same):
                done = "added" if wanted > 0 else "subtracted"
                raise InputError(
                    f'the sketches cannot be combined: "{theirs.name}" ({theirs.fingerprint[:12]}) was {done} already '
                    "and would count twice. Combine sketches of disjoint sets."
                )
            if same:
                history.remove(same[0])
            else:
                history.append(("+" if wanted > 0 else "-") + line[1:])
        name = self.data["name"]
        fingerprint = hashlib.sha256("\n".join(sorted(history)).encode()).hexdigest()
        if len(history) == 1 and entry(history[0]).sign > 0:
            _, name, fingerprint = entry(history[0])
        data = {**self.data, "name": name, "fingerprint": fingerprint}
        return dataclasses.replace(self, history=history, data=data, landmarks=landmarks)

    def dumps(self) -> str:
        """As JSON; without the keys that a file of its version does not know."""
        told = dataclasses.asdict(self)
        for name in ("landmarks", "plus"):
            if not told[name]:
                del told[name]
        return json.dumps(told, sort_keys=True)

    def digest(self) -> str:
        """sha256 of the JSON."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()


def version_of(landmarks: int | None, num_terms: int = 1) -> int:
    """Format version of a new sketch."""
    return 3 if num_terms > 1 else 1 if landmarks is None else 2


def entry(line: str) -> Entry:
    """A line of a history, read.

    Raises:
        BundleError: it is none.
    """
    found = _ENTRY.fullmatch(line)
    if found is None:
        raise BundleError(f"the sketch's history is damaged: {line!r}")
    return Entry(1 if found[1] == "+" else -1, found[2], found[3])


def loads(text: str) -> Manifest:
    """A manifest from its JSON.

    Raises:
        BundleError: another version, or not a manifest.
    """
    try:
        given = json.loads(text)
        version = given.get("version")
    except (ValueError, AttributeError) as error:
        raise BundleError(f"the sketch's manifest is not readable: {error}") from error
    if version not in _VERSIONS:
        known = ", ".join(map(str, _VERSIONS))
        raise BundleError(f"the sketch has format version {version}; this latentdc reads {known}: make it again")
    try:
        return Manifest(**given)
    except TypeError as error:
        raise BundleError(f"the sketch's manifest is damaged: {error}") from error


def _compare(name: str, mine: Any, other: Any) -> list[str]:
    if mine == other or name in _PLACES:
        return []
    if isinstance(mine, dict) and isinstance(other, dict):
        keys = sorted(mine | other)
        return [line for key in keys for line in _compare(f"{name}.{key}", mine.get(key), other.get(key))]
    if name in ("draws", "fingerprints"):
        return [f"{name} differ"]
    return [f"{name} = {other!r} instead of {mine!r}"]


def landmarks_of(looks: Sequence[tuple[Representation, Discrepancy]], landmarks: int | None) -> list[int | None]:
    """For each term how many landmarks stand for a class; None where sums do.

    Raises:
        InputError: a term that a sketch cannot hold, or landmarks where all have sums.
    """
    needed = [see.kind == "points" and not by.sketchable for see, by in looks]
    found = [landmarks if needs or not any(needed) else None for needs in needed]
    for look, num in zip(looks, found, strict=True):
        must_be_sketchable(*look, num)
    return found


def must_be_sketchable(see: Representation, by: Discrepancy, landmarks: int | None = None) -> None:
    """Refuse what a sketch cannot hold, and landmarks where sums are exact.

    Raises:
        InputError: with what to use instead.
    """
    looked, compared = type(see).__name__.lower(), type(by).__name__.lower()
    batches = 'source.kind = "minibatches"'
    if see.kind != "points" and not isinstance(see, Additive):
        raise InputError(
            f'"{looked}" shows a row for each class and does not say which means over images it follows from (summed '
            f"and of_means), so that no sum serves it; condense from mini-batches ({batches})"
        )
    if landmarks is not None and landmarks < 1:
        raise InputError(f"landmarks = {landmarks}: give at least 1, or leave it out")
    if landmarks is not None and (see.kind != "points" or by.sketchable):
        raise InputError(
            f'landmarks = {landmarks}: of "{looked}" by "{compared}" a sketch holds sums, which are exact; leave '
            "landmarks out"
        )
    if landmarks is None and see.kind == "points" and not by.sketchable:
        sums = ", ".join(sorted(name for name, part in DISCREPANCIES.items() if part.sketchable))
        raise InputError(
            f'"{compared}" needs the real points themselves, which a sketch does not hold; give it weighted ones in '
            f"their place (source.landmarks = 100), condense from mini-batches ({batches}), or use one of {sums} "
            '("rff" is the form of "mmd" that has sums)'
        )
