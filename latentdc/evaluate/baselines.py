"""The rows printed beside a set: real images, at random or medoids; the decoder's own, undistilled or encoded."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from latentdc.bundle import Bundle
from latentdc.bundle.identity import identity_of
from latentdc.clusters import medoids
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, unknown
from latentdc.evaluate.sets import COUNT_BYTES, ImageSet, Subject, exported, of_store, real_bytes_per_class
from latentdc.initialise import encodes, initialise
from latentdc.latents import decode
from latentdc.networks import build
from latentdc.networks.train import embed
from latentdc.portable.bank import LatentBank
from latentdc.seeding import stream

USUAL: tuple[str, ...] = ("random-real", "medoids", "undistilled")
"""Baselines that are trained where none are named."""

TOTAL = "random-real-total"
"""As many random real images as the bytes of all that the set needs would hold, its private decoder's too."""

BASELINES: tuple[str, ...] = (*USUAL, "encoded", TOTAL)
"""Names of the baselines, in the order they are printed."""

MEDOID_CANDIDATES = 500
"""Images per class that are clustered for ``medoids`` (ten per medoid if that is more), redrawn with each seed."""


@dataclass(frozen=True)
class Candidate:
    """A row to evaluate: how many images, how many bytes, and how to draw it for a seed."""

    name: str
    basis: str
    counts: tuple[int, ...]
    """Images of each class that the student trains on."""
    stored_per_class: float
    bytes_per_class: float
    key: str
    """What the draw depends on besides the seed; part of a run's identity."""
    draw: Callable[[int], ImageSet]

    @property
    def num_images(self) -> int:
        """Images in the set."""
        return sum(self.counts)


def equal_bytes_count(bytes_per_class: float, shape: tuple[int, int, int]) -> int:
    """Real uint8 images per class that stand for a byte budget: rounded up, but for a last tenth of an image.

    So the baseline never has notably fewer bytes than the set. 0 when less than half an image fits the budget.
    """
    fits = (bytes_per_class - COUNT_BYTES) / math.prod(shape)
    return 0 if fits < 0.5 else max(1, math.ceil(fits - 0.1))


def random_real(real: ClassStore, counts: Sequence[int], seed: int) -> ImageSet:
    """A random subset of the real images, ``counts[c]`` of class c, redrawn with every seed."""
    picked = [real.pick(c, num, stream(seed, "random-real", index=c)) for c, num in enumerate(counts)]
    return of_store(real.subset(torch.cat(picked)))


def real_medoids(real: ClassStore, counts: Sequence[int], seed: int, *, width: int | None = None) -> ImageSet:
    """The k-means medoids of each class in the embedding of a randomly initialised ConvNet, ``counts[c]`` of class c.

    The feature space needs neither labels nor training, and it is the one distribution matching compares sets in.
    Network, candidates (500 images a class, or ten per medoid) and k-means++ all follow the seed.
    """
    net = build("convnet", real.spec, seed=seed, width=width, purpose="medoids-network")
    chosen = []
    for c, num in enumerate(counts):
        if not num:
            continue
        rng = stream(seed, "medoids", index=c)
        candidates = real.pick(c, min(real.count(c), max(10 * num, MEDOID_CANDIDATES)), rng)
        points = embed(net, real.images[candidates])
        chosen.append(candidates[medoids(points, num, rng)])
    return of_store(real.subset(torch.cat(chosen)))


def undistilled(bundle: Bundle, seed: int) -> ImageSet:
    """As many latents as the bundle stores, drawn from its decoder's prior, quantised and decoded in the same way."""
    latents = bundle.decoder.prior(bundle.bank.owner[bundle.bank.rows()], stream(seed, "undistilled"))
    bank = LatentBank.of(latents, bundle.bank.counts).quantise(bundle.bank.storage)
    return exported(decode(bundle.decoder, bank, formation=bundle.formation))


def encoded(bundle: Bundle, real: ClassStore, seed: int) -> ImageSet:
    """As many rows as the bundle stores, of random real images encoded by its decoder, quantised and decoded alike.

    *Reference:* the control that Duan et al. 2023, arXiv 2311.15547, were asked for: encode, no distillation, decode.
    """
    start = initialise(
        "real", bundle.decoder, bundle.bank.counts, seed=seed, store=real, formation=bundle.formation
    ).quantise(bundle.bank.storage)
    return exported(decode(bundle.decoder, start, formation=bundle.formation))


def candidates(
    subject: Subject, real: ClassStore, names: Sequence[str], *, width: int | None = None
) -> tuple[list[Candidate], list[str]]:
    """The set itself, then its baselines at equal number of images and at equal bytes; and why any row is left out.

    Args:
        subject: the set under evaluation.
        real: real images to draw from.
        names: which of ``BASELINES``.
        width: width of the medoids' feature network, for tests; None is the published width.

    Raises:
        InputError: an unknown baseline.
    """
    for name in names:
        if name not in BASELINES:
            raise InputError(unknown("baseline", name, BASELINES))
    images, shape, num_classes = subject.images, real.spec.image_shape, real.spec.num_classes
    sha256 = images.sha256()
    per_class = len(images) / num_classes
    same = subject.stored_per_class, subject.bytes_per_class
    rows = [Candidate("bundle", "equal-images", images.counts, *same, sha256, lambda _: images)]
    budgets = [("equal-images", images.counts)]
    affordable = equal_bytes_count(subject.bytes_per_class, shape)
    notes = []
    if affordable == 0 and set(names) & {"random-real", "medoids"}:
        notes.append(
            f"equal-bytes rows left out: {subject.bytes_per_class:.0f} bytes hold less than half of one real image "
            f"({math.prod(shape)} bytes)"
        )
    elif affordable and (affordable,) * num_classes != images.counts:
        budgets.append(("equal-bytes", (affordable,) * num_classes))
    whole = equal_bytes_count(_total(subject) / num_classes, shape)
    totals = [("equal-total", (whole,) * num_classes)]
    for name in (name for name in BASELINES if name in names):
        if name in ("undistilled", "encoded"):
            if why := _without(name, subject, real):
                notes.append(f"{name} left out: {why}")
            else:
                assert subject.bundle is not None
                rows.append(_decoder_row(name, subject, subject.bundle, real))
            continue
        if name == TOTAL and whole <= affordable:
            notes.append(f"{name} left out: with its decoder the set weighs no more real images than without")
            continue
        for basis, counts in totals if name == TOTAL else budgets:
            short = [real.spec.class_names[c] for c, num in enumerate(counts) if num > real.count(c)]
            if short:
                notes.append(
                    f"{name} ({basis}) left out: fewer real images than {max(counts)} in class {', '.join(short)}"
                )
            else:
                rows.append(_real_row(name, basis, counts, real, width))
    if per_class != subject.stored_per_class:
        notes.append(
            f"images_per_class counts what students see; {subject.stored_per_class:g} rows per class are stored"
        )
    return rows, notes


def _real_row(name: str, basis: str, counts: tuple[int, ...], real: ClassStore, width: int | None) -> Candidate:
    """A row of real images."""
    per_class = sum(counts) / len(counts)

    def draw(seed: int) -> ImageSet:
        if name == "medoids":
            return real_medoids(real, counts, seed, width=width)
        return random_real(real, counts, seed)

    size = real_bytes_per_class(per_class, real.spec.image_shape)
    return Candidate(name, basis, counts, per_class, size, f"{real.spec.fingerprint}/{counts}/{width}", draw)


def _total(subject: Subject) -> int:
    """Bytes of all that a set needs, without a public decoder and what only describes it."""
    return sum(subject.bytes.get(line, 0) for line in ("latents", "scales", "labels", "shared", "private_decoder"))


def _without(name: str, subject: Subject, real: ClassStore) -> str:
    """Why a set has no such row of its decoder's; empty where it has."""
    if subject.bundle is None:
        return "these images are of no bundle, whose decoder would make others"
    if name == "encoded" and not encodes(subject.bundle.decoder):
        return f"{type(subject.bundle.decoder).__name__} cannot encode images"
    if name == "encoded" and any(num > real.count(c) for c, num in enumerate(subject.images.counts)):
        return f"fewer real images than {max(subject.images.counts)} in a class"
    return ""


def _decoder_row(name: str, subject: Subject, bundle: Bundle, real: ClassStore) -> Candidate:
    """A row of what the bundle's decoder makes undistilled; equal in number."""
    counts, stored, size = subject.images.counts, subject.stored_per_class, _rows_bytes_per_class(bundle)
    key = _decoder_key(bundle)
    if name == "undistilled":
        return Candidate(name, "equal-images", counts, stored, size, key, lambda seed: undistilled(bundle, seed))
    key = f"{real.spec.fingerprint}/{key}"
    return Candidate(name, "equal-images", counts, stored, size, key, lambda seed: encoded(bundle, real, seed))


def _rows_bytes_per_class(bundle: Bundle) -> float:
    """Bytes of a class of hard-labelled rows, as many as the bundle has, in its storage; also where it has none.

    A distribution stores no rows, so that its own bytes are not those of as many latents.
    """
    bank = bundle.bank
    blank = {name: torch.zeros(bank.num_rows, *shape) for name, shape in bank.shapes.items()}
    payload: dict[str, int] = LatentBank.of(blank, bank.counts).quantise(bank.storage).payload_bytes()
    return (sum(payload.values()) + bundle.storage.shared) / bank.num_classes


def _decoder_key(bundle: Bundle) -> str:
    """Hash of what such rows depend on: not the distilled latents, so an ablation trains this row once."""
    whole = {
        "decoder": identity_of(bundle.decoder),
        "formation": None if bundle.formation is None else identity_of(bundle.formation),
        "storage": bundle.bank.storage,
        "counts": list(bundle.bank.counts),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
