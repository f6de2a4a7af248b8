"""``ClassStore``: a labelled image set in memory, uint8 and grouped by class; floats appear only in a batch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentdc.errors import DataError
from latentdc.types import Batch, DataSpec

_STATS_CHUNK = 256


class ClassStore:
    """Images ``(n, c, h, w)`` uint8 and labels ``(n,)`` int64, sorted by class.

    Args:
        images: uint8 ``(n, c, h, w)``; kept without a copy when the labels are already sorted.
        labels: integers in ``[0, spec.num_classes)``, one per image, in any order (the order within a class is kept).
        spec: shape, class names and statistics; an empty ``fingerprint`` is filled in.
        allow_empty: accept classes without images (a test split or a slice; a training set has none).
        digests: sha256 of each image ``(n, 32)`` uint8 when already known; computed otherwise.

    Raises:
        DataError: wrong type or shape, labels out of range, an empty class, or fewer than two classes.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        spec: DataSpec,
        *,
        allow_empty: bool = False,
        digests: np.ndarray[tuple[int, int], np.dtype[np.uint8]] | None = None,
    ) -> None:
        labels = _validate(images, labels, spec)
        if bool((labels[1:] < labels[:-1]).any()):
            order = torch.sort(labels, stable=True).indices
            images, labels = images[order], labels[order]
            digests = None if digests is None else digests[order.cpu().numpy()]
        counts = torch.bincount(labels, minlength=spec.num_classes).tolist()
        empty = [spec.class_names[c] for c, count in enumerate(counts) if count == 0]
        if empty and not allow_empty:
            raise DataError(
                f"{spec.name}: no image of class {', '.join(map(repr, empty[:5]))}. "
                "Every class needs at least one: add images, or leave the class out with the class subset."
            )
        self.images = images
        self.labels = labels
        self._digests = digests
        self.offsets: tuple[int, ...] = (0, *(int(o) for o in np.cumsum(counts)))
        self.spec = spec if spec.fingerprint else dataclasses.replace(spec, fingerprint=self.fingerprint())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each class, ``k`` integers."""
        return tuple(b - a for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True))

    @property
    def digests(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        """sha256 of every image's bytes ``(n, 32)``, computed once."""
        if self._digests is None:
            array = self.images.cpu().contiguous().numpy().reshape(len(self), -1)
            hashes = b"".join(hashlib.sha256(row.tobytes()).digest() for row in array)
            self._digests = np.frombuffer(hashes, dtype=np.uint8).reshape(len(self), 32)
        return self._digests

    def fingerprint(self) -> str:
        """sha256 over the image shape and the sorted (image hash, label) pairs: the same for any order of the rows."""
        labels = self.labels.cpu().numpy().astype(">u4").view(np.uint8).reshape(-1, 4)
        rows = np.concatenate([self.digests, labels], axis=1)
        total = hashlib.sha256(repr(tuple(self.images.shape[1:])).encode())
        total.update(rows[np.lexsort(_words(rows))].tobytes())
        return total.hexdigest()

    def count(self, cls: int) -> int:
        """Number of images of one class."""
        return self.offsets[cls + 1] - self.offsets[cls]

    def of_class(self, cls: int) -> Tensor:
        """The images of one class, a uint8 view ``(n_cls, c, h, w)``."""
        return self.images[self.offsets[cls] : self.offsets[cls + 1]]

    def batch(self, indices: Tensor | Sequence[int]) -> Batch:
        """Images by store index as a ``Batch``: float32 in [0, 1] with one-hot targets."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        owner = self.labels[rows]
        x = self.images[rows].to(torch.float32).div_(255)
        return Batch(x, F.one_hot(owner, self.spec.num_classes).to(torch.float32), owner)

    def pick(self, cls: int, num: int, rng: torch.Generator) -> Tensor:
        """Store indices ``(num,)`` of distinct random images of one class.

        Raises:
            DataError: the class has fewer images than asked.
        """
        self._enough(cls, num)
        return self.offsets[cls] + torch.randperm(self.count(cls), generator=rng)[:num]

    def subset(self, indices: Tensor | Sequence[int]) -> ClassStore:
        """A store of the given rows with the same statistics and its own fingerprint; classes may become empty."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        spec = dataclasses.replace(self.spec, fingerprint="")
        digests = None if self._digests is None else self._digests[rows.cpu().numpy()]
        return ClassStore(self.images[rows], self.labels[rows], spec, allow_empty=True, digests=digests)

    def limit(self, per_class: int) -> ClassStore:
        """The first ``per_class`` images of every class.

        Raises:
            DataError: a class has fewer.
        """
        for cls in range(self.spec.num_classes):
            self._enough(cls, per_class)
        return self.subset(torch.cat([torch.arange(a, a + per_class) for a in self.offsets[:-1]]))

    def holdout(self, fraction: float = 0.1) -> tuple[ClassStore, ClassStore]:
        """(the rest, a held-out slice): the images of each class whose sha256 is lowest, in whatever order rows come.

        Both parts carry the specification of the rest, so that a network made for one fits the other.

        Args:
            fraction: share of each class to hold out, in (0, 1); at least one image stays on either side.

        Raises:
            DataError: a class has fewer than two images, or the fraction is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise DataError(f"holdout fraction {fraction}: give a number between 0 and 1, for instance 0.1.")
        ranks = np.lexsort((*_words(self.digests), self.labels.cpu().numpy()))
        held = np.zeros(len(self), dtype=bool)
        for cls, (start, stop) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            if stop - start < 2:
                raise DataError(
                    f'{self.spec.name}: class "{self.spec.class_names[cls]}" has {stop - start} image, of which none '
                    "can be held out: give two or more of each class, or hold none out."
                )
            num = min(max(round(fraction * (stop - start)), 1), stop - start - 1)
            held[ranks[start : start + num]] = True
        mask = torch.from_numpy(held)
        rest, slice_ = self.subset((~mask).nonzero().flatten()), self.subset(mask.nonzero().flatten())
        slice_.spec = rest.spec
        return rest, slice_

    def choose(self, classes: Sequence[int]) -> ClassStore:
        """A store of some classes only, renumbered 0 … in the given order."""
        rows = torch.cat([torch.arange(self.offsets[c], self.offsets[c + 1]) for c in classes])
        labels = torch.cat([torch.full((self.count(c),), new) for new, c in enumerate(classes)])
        names = tuple(self.spec.class_names[c] for c in classes)
        spec = dataclasses.replace(self.spec, class_names=names, fingerprint="")
        return ClassStore(self.images[rows], labels, spec, allow_empty=True)

    def with_statistics(self, mean: Sequence[float], std: Sequence[float]) -> ClassStore:
        """The same images under other statistics: networks then standardise them as they do those of another set.

        Raises:
            DataError: not one number per channel.
        """
        channels = self.spec.image_shape[0]
        if len(mean) != channels or len(std) != channels:
            raise DataError(f"{self.spec.name}: statistics of {len(mean)} channels for images of {channels}.")
        spec = dataclasses.replace(self.spec, mean=tuple(mean), std=tuple(std))
        return ClassStore(self.images, self.labels, spec, allow_empty=True, digests=self._digests)

    def to(self, device: torch.device | str) -> ClassStore:
        """The same store with its uint8 images on another device."""
        images, labels = self.images.to(device), self.labels.to(device)
        return ClassStore(images, labels, self.spec, allow_empty=True, digests=self._digests)

    def _enough(self, cls: int, num: int) -> None:
        if num > self.count(cls):
            raise DataError(
                f'{self.spec.name}: {num} images of class "{self.spec.class_names[cls]}" were asked for and it has '
                f"{self.count(cls)}. Ask for at most {min(self.counts)} per class, or leave the class out."
            )


def from_arrays(
    images: Tensor | np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: Tensor | Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    class_names: Sequence[str],
    *,
    name: str = "unnamed",
    mirror: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ClassStore:
    """A ``ClassStore`` from images ``(n, c, h, w)`` uint8 and integer labels; statistics are computed unless given.

    Raises:
        DataError: as ``ClassStore``.
    """
    x = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    y = torch.as_tensor(labels)
    if x.ndim != 4 or x.dtype != torch.uint8:
        raise DataError(f"{name}: images are {x.dtype} {tuple(x.shape)}; give uint8 (n, channels, height, width).")
    if mean is None or std is None:
        mean, std = channel_statistics(x)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    spec = DataSpec(shape, tuple(class_names), tuple(mean), tuple(std), mirror, name)
    return ClassStore(x, y, spec)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation in [0, 1] of uint8 images ``(n, c, h, w)``; std is at least 1e-3."""
    num = max(images.shape[0] * images.shape[2] * images.shape[3], 1)
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    square = torch.zeros_like(total)
    for part in torch.split(images, _STATS_CHUNK):
        values = part.to(torch.int64)
        total += values.sum((0, 2, 3)).cpu()
        square += (values * values).sum((0, 2, 3)).cpu()
    mean = total.double() / num
    std = (square.double() / num - mean**2).clamp_min(0).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).clamp_min(1e-3).tolist())


def _validate(images: Tensor, labels: Tensor, spec: DataSpec) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != tuple(spec.image_shape):
        raise DataError(
            f"{spec.name}: images are {images.dtype} {tuple(images.shape)}; "
            f"give uint8 (n, {', '.join(map(str, spec.image_shape))})."
        )
    if labels.ndim != 1 or len(labels) != len(images) or labels.is_floating_point():
        raise DataError(
            f"{spec.name}: labels are {labels.dtype} {tuple(labels.shape)} for {len(images)} images; "
            "give one integer per image."
        )
    if spec.num_classes < 2:
        raise DataError(
            f"{spec.name}: only {spec.num_classes} class ({', '.join(spec.class_names)}). Condensation compares "
            "classifiers, so it needs at least two: add a class, or widen the class subset."
        )
    if len(set(spec.class_names)) != spec.num_classes:
        raise DataError(
            f"{spec.name}: class names repeat: {', '.join(spec.class_names)}. Give each class its own name."
        )
    labels = labels.to(torch.int64)
    bad = ((labels < 0) | (labels >= spec.num_classes)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{spec.name}: {len(bad)} labels are out of range, the first is {int(labels[row])} at row {row}; "
            f"with {spec.num_classes} classes labels are 0 to {spec.num_classes - 1}."
        )
    return labels


def _words(
    rows: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint32]], ...]:
    """Big-endian words of byte rows, last word first: ``np.lexsort`` of them orders the rows as bytes."""
    words = np.ascontiguousarray(rows).view(">u4")
    return tuple(words[:, i] for i in reversed(range(words.shape[1])))
