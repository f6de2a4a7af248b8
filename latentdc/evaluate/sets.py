"""The sets students train on: what a user would export, uint8 images with their targets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdc.bundle import Bundle, load_bundle, looks_like_bundle
from latentdc.data.folders import folder_names
from latentdc.data.named import PUBLISHED
from latentdc.data.sources import open_data
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import resolve_decoder
from latentdc.errors import DataError, InputError
from latentdc.initialise import encodes
from latentdc.latents import decode
from latentdc.passing import reconstructions, samples
from latentdc.portable.distribution import DistributionBank
from latentdc.resources import shipped
from latentdc.types import Batch, DataSpec

COUNT_BYTES = 4
"""Class-grouped hard labels are stored as one 4-byte count per class."""


@dataclass(frozen=True)
class ImageSet:
    """Images as exported and their targets."""

    x: Tensor
    """``(n, c, h, w)`` uint8."""
    y: Tensor
    """Targets ``(n, k)`` float; a hard label is a one-hot row."""
    owner: Tensor
    """Class of each image ``(n,)`` int64."""
    w: Tensor | None = None
    """Weight of each image ``(n,)`` or None."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def counts(self) -> tuple[int, ...]:
        """Images of each class."""
        return tuple(torch.bincount(self.owner, minlength=self.y.shape[1]).tolist())

    @property
    def hard(self) -> bool:
        """Whether every target is one class."""
        return bool((self.y.amax(1) == 1).all())

    def sha256(self) -> str:
        """Hash over shape, pixels, targets and weights."""
        digest = hashlib.sha256(repr((tuple(self.x.shape), tuple(self.y.shape))).encode())
        for tensor in (self.x, self.y) if self.w is None else (self.x, self.y, self.w):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Subject:
    """The set under evaluation, with what its baselines must match."""

    name: str
    images: ImageSet
    stored_per_class: float
    """Stored rows per class before any formation."""
    bytes: Mapping[str, int]
    """Bytes of the whole set by line."""
    bytes_per_class: float
    fingerprint: str
    """Fingerprint of the data a bundle was condensed from; empty when unknown."""
    bundle: Bundle | None = None
    note: str = ""
    """What a reader must know of it."""


def exported(batch: Batch) -> ImageSet:
    """A decoded batch as a user would export it: clamped to [0, 1] and rounded to uint8."""
    x = batch.x.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    w = None if batch.w is None else batch.w.detach().float().cpu()
    return ImageSet(x.cpu(), batch.y.detach().float().cpu(), batch.owner.cpu(), w)


def of_store(store: ClassStore) -> ImageSet:
    """All images of a store with one-hot targets."""
    owner = store.labels.cpu()
    return ImageSet(store.images.cpu(), F.one_hot(owner, store.spec.num_classes).float(), owner)


def real_bytes_per_class(images_per_class: float, shape: tuple[int, int, int]) -> float:
    """Bytes per class of real images: uint8 pixels and one class count, by the same rule as a bundle."""
    channels, height, width = shape
    return images_per_class * channels * height * width + COUNT_BYTES


def subject_of(
    source: str | Path | Bundle | ClassStore | Subject,
    real: ClassStore,
    *,
    images_per_class: int | None = None,
    classes: Sequence[type[nn.Module]] = (),
) -> Subject:
    """Open the set to evaluate and check that it fits the data.

    Args:
        source: a bundle folder, a decoder (its folder, or the name of a shipped one: all real images passed through
            it), any folder (or other source name) of labelled images, a ``Bundle`` or a ``ClassStore``; a
            ``Subject`` stays what it is.
        real: the real images that the set stands for.
        images_per_class: of a bundle, the images of each class: its first rows, or as many draws where it stores a
            distribution; None for all, or for its own number.
        classes: those that a bundle or decoder is made of and latentdc does not have; their code runs.

    Raises:
        BundleError: the bundle or the decoder is damaged.
        DataError: no such folder, or its classes or image shape differ from the data's.
        InputError: a decoder that makes other images, or of other classes; a number of images of what is no bundle,
            more than it stores, or one that the formation does not make.
    """
    spec = real.spec
    if images_per_class is not None:
        source = _sized(source, images_per_class, classes)
    if isinstance(source, Subject):
        return source
    if isinstance(source, Bundle):
        return _of_bundle(source, source.path.name if source.path else "bundle", spec)
    if isinstance(source, ClassStore):
        return _of_images(source, source.spec.name, spec)
    path = Path(source)
    if looks_like_bundle(path):
        return _of_bundle(load_bundle(path, classes=classes), path.name, spec)
    if is_decoder(source):
        return _of_decoder(path, real, classes)
    if not path.exists() and str(source) not in PUBLISHED:
        raise InputError(
            f'"{source}": there is no such bundle, decoder or folder of images; condense writes a bundle (--out), '
            f"shipped decoders are {', '.join(sorted(shipped('checkpoints')))}."
        )
    return _of_images(open_data(str(source)).train, path.name, spec)


def _sized(source: str | Path | Bundle | ClassStore | Subject, num: int, classes: Sequence[type[nn.Module]]) -> Bundle:
    """A bundle cut down to its first ``num`` images of each class, or drawing as many."""
    if isinstance(source, str | Path) and looks_like_bundle(source):
        source = load_bundle(source, classes=classes)
    asked = f"images_per_class = {num} (--images-per-class)"
    if not isinstance(source, Bundle):
        raise InputError(f"{asked}: this is no bundle, and all its images are evaluated. Leave it out.")
    expands = 1 if source.formation is None else int(source.formation.expands)
    if num < 1 or num % expands:
        raise InputError(f"{asked}: give a multiple of {expands}, at least that.")
    if isinstance(source.bank, DistributionBank):
        return replace(source, bank=source.bank.drawing(num // expands))
    if num > (most := expands * max(source.bank.counts)):
        raise InputError(f"{asked}: the bundle stores {most}. Give at most that, or leave it out for all.")
    return replace(source, bank=source.bank.prefix(num // expands))


def is_decoder(source: str | Path) -> bool:
    """Whether a source of a set is a decoder: a shipped one's name, or a folder of one of ours or of diffusers."""
    root = Path(source)
    found = any((root / name).is_file() for name in ("config.json", "model_index.json"))
    return str(source) in shipped("checkpoints") or (found and not looks_like_bundle(root))


def at_size(source: str, size: int | None) -> str | ClassStore:
    """Labelled images brought to ``size``, as the data they are evaluated on is; a bundle or no size: as given.

    Raises:
        DataError: no such folder, or one that cannot be read.
    """
    if size is None or is_decoder(source) or looks_like_bundle(source):
        return source
    return open_data(source, size=size).train


def _slug(name: str) -> str:
    """A class name as a folder can carry it: only letters and digits count."""
    return re.sub(r"[\W_]+", "-", name).strip("-").lower()


def _matched(given: DataSpec, wanted: DataSpec, name: str) -> list[int]:
    """The given number of each wanted class: by its name, else as ``decode`` writes it, else by letters and digits."""
    numbers = {have: number for number, have in enumerate(given.class_names)}
    found: dict[str, int] = {}
    for written in (wanted.class_names, folder_names(wanted.class_names)):
        for want, text in zip(wanted.class_names, written, strict=True):
            if want not in found and text in numbers:
                found[want] = numbers.pop(text)
    open_, left = _by_slug(want for want in wanted.class_names if want not in found), _by_slug(numbers)
    for slug in open_.keys() & left.keys():
        if len(open_[slug]) > 1 or len(left[slug]) > 1:
            raise DataError(
                f'"{name}": which of its classes {", ".join(left[slug])} is which of {", ".join(open_[slug])} in '
                f'{wanted.name}? To letters and digits all are "{slug}". Rename the class folders to the exact names.'
            )
        found[open_[slug][0]] = numbers.pop(left[slug][0])
    missing, extra = [want for want in wanted.class_names if want not in found], list(numbers)
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(extra)}, which the data has not"] if extra else []
        raise DataError(
            f'"{name}" {" and ".join(parts)}. Its classes must be those of {wanted.name}: '
            f"{', '.join(wanted.class_names)}; rename the class folders, or evaluate on a class subset (--classes)."
        )
    return [found[want] for want in wanted.class_names]


def _by_slug(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_slug(name), []).append(name)
    return found


def _fits(given: DataSpec, wanted: DataSpec, name: str) -> list[int]:
    """The given number of each wanted class; refuses classes or shapes that differ."""
    numbers = _matched(given, wanted, name)
    if tuple(given.image_shape) != tuple(wanted.image_shape):
        raise DataError(
            f'"{name}" holds images of (channels, height, width) = {tuple(given.image_shape)}, {wanted.name} of '
            f"{tuple(wanted.image_shape)}; export or load them at the same size (--size)."
        )
    return numbers


def _of_bundle(bundle: Bundle, name: str, spec: DataSpec) -> Subject:
    """Decode a bundle's rows, all of them, through its formation."""
    if _fits(bundle.spec, spec, name) != list(range(spec.num_classes)):
        raise DataError(
            f'"{name}" numbers its classes {", ".join(bundle.spec.class_names)}, {spec.name} numbers them '
            f"{', '.join(spec.class_names)}: open the data with the bundle's class order (--classes)."
        )
    lines = bundle.storage.to_dict()
    return Subject(
        name=name,
        images=exported(decode(bundle.decoder, bundle.bank, formation=bundle.formation)),
        stored_per_class=bundle.bank.num_rows / spec.num_classes,
        bytes={name: value for name, value in lines.items() if isinstance(value, int) and name != "num_classes"},
        bytes_per_class=bundle.storage.bytes_per_class,
        fingerprint=bundle.spec.fingerprint,
        bundle=bundle,
    )


def _of_images(store: ClassStore, name: str, spec: DataSpec) -> Subject:
    """Labelled images, their classes renumbered to the data's by name."""
    images = of_store(store.choose(_fits(store.spec, spec, name)))
    per_class = len(images) / spec.num_classes
    pixels = int(images.x.numel())
    labels = COUNT_BYTES * spec.num_classes
    return Subject(
        name=name,
        images=images,
        stored_per_class=per_class,
        bytes={"pixels_uint8": pixels, "labels": labels},
        bytes_per_class=(pixels + labels) / spec.num_classes,
        fingerprint="",
    )


def _of_decoder(path: Path, real: ClassStore, classes: Sequence[type[nn.Module]]) -> Subject:
    """Every real image encoded and decoded; of a decoder that cannot encode, as many draws from its prior."""
    decoder = resolve_decoder(path, real.spec, classes=classes)
    can = encodes(decoder)
    x = reconstructions(decoder, real.images, real.labels) if can else samples(decoder, real.labels, seed=0)
    images = replace(of_store(real), x=x)
    pixels, labels = int(x.numel()), COUNT_BYTES * real.spec.num_classes
    return Subject(
        name=path.name,
        images=images,
        stored_per_class=len(x) / real.spec.num_classes,
        bytes={"pixels_uint8": pixels, "labels": labels},
        bytes_per_class=(pixels + labels) / real.spec.num_classes,
        fingerprint=real.spec.fingerprint,
        note="every real image, encoded and decoded" if can else "as many draws from the prior as real images",
    )
