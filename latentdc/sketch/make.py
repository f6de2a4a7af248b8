"""The verb ``sketch``: embed the whole real set once under fixed (network, augmentation draw) pairs."""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from latentdc.data import augment as augmentation
from latentdc.data.augment import Augment, AugmentDraw
from latentdc.data.store import ClassStore
from latentdc.devices import device_of
from latentdc.discrepancies import Discrepancy
from latentdc.errors import BundleError, InputError
from latentdc.networks import FixedPool, Network, fingerprint
from latentdc.networks.compiled import observer
from latentdc.representations import Representation, needs_of
from latentdc.seeding import stream
from latentdc.sketch.artefact import Sketch
from latentdc.sketch.embed import Embedder, Term, look_of
from latentdc.sketch.files import read, write
from latentdc.sketch.held import Held, term_prefix
from latentdc.sketch.manifest import Manifest, describe, landmarks_of, version_of
from latentdc.source import Look
from latentdc.types import Part

_log = logging.getLogger(__name__)
_CALIBRATION_IMAGES = 256
"""Images of each class from which a pair's kernel lengths are taken."""


def sketch(
    store: ClassStore,
    pool: FixedPool,
    augment: Augment,
    see: Representation,
    by: Discrepancy,
    *,
    num_pairs: int | None = None,
    seed: int = 0,
    images_per_pair: int | None = None,
    landmarks: int | None = None,
    plus: Sequence[tuple[Representation, Discrepancy]] = (),
    batch_size: int = 500,
    precision: str = "fp32",
    compile: bool = False,
    device: torch.device | str = "cpu",
    out: str | Path | None = None,
    like: Sketch | None = None,
    progress: bool = True,
) -> Sketch:
    """Sums and counts, per pair and class, of what ``see`` shows of the whole real set.

    Pair i is network ``i % pool.num`` with its own augmentation draw, shared by all classes and images. Discrepancies
    that need points are given weighted ones in their place, ``landmarks`` of each class: what that loses is said in
    ``latentdc.sketch.landmarks``.

    Args:
        store: the real images; classes may be empty (a shard).
        pool: the networks.
        augment: the augmentation; what would change a label of this data set is left out of it.
        see: what of the networks is summed.
        by: the discrepancy the sketch will serve; decides the form of the sums.
        num_pairs: number of pairs; None is one per network.
        seed: of the augmentation draws, the subsets and the later walk through the pairs.
        images_per_pair: a keyed random subset of each class for each pair, or None for all images.
        landmarks: weighted points that stand for those of a class, for discrepancies that no sum can serve; a smaller
            class is kept whole.
        plus: further terms of the objective, as pairs of representation and discrepancy, under the same networks and
            draws. Terms kept as sums of points share a pass over the images, those kept as landmarks another.
        batch_size: images at a time.
        precision: ``"fp32"`` or ``"bf16"`` for the forward passes; sums are float64 in any case.
        compile: compile the forward pass (about three times as fast on a CPU, after half a minute).
        device: where to compute.
        out: file to write. Finished pairs are kept beside it, in ``<out>.partial``, until it is written, so that a
            run that was cut off goes on where it stopped.
        like: another sketch whose kernel lengths to use, so that the two can be merged or subtracted.
        progress: show a progress bar on standard error.

    Raises:
        InputError: representation or discrepancy cannot be sketched so, or a number is out of range.
        BundleError: the partial folder beside ``out`` belongs to another sketch.
    """
    looks = [Look(see, by), *(Look(*each) for each in plus)]
    nums = landmarks_of(looks, landmarks)
    if not isinstance(pool, FixedPool):
        raise InputError(f"{type(pool).__name__}: a sketch needs a fixed pool of networks; set the pool to fixed")
    num_pairs = pool.num if num_pairs is None else num_pairs
    _must_count(num_pairs=num_pairs, batch_size=batch_size, images_per_pair=images_per_pair)
    augment = augment.for_data(store.spec)
    draws = [
        augment.draw(1, store.spec.image_shape, stream(seed, "augment", index=pair), shared=True)
        for pair in range(num_pairs)
    ]
    manifest = _manifest(
        store, pool, looks, augment, draws, seed=seed, images_per_pair=images_per_pair, precision=precision
    )
    manifest = dataclasses.replace(manifest, landmarks=landmarks, version=version_of(landmarks, len(looks)))
    if like is not None and (wrong := manifest.differences(like.manifest)):
        raise InputError(f"`like` was not taken alike: {'; '.join(wrong)}. Take both with the same settings.")
    device = device_of(device)
    pool.to(device)
    parts = frozenset[Part]().union(*(needs_of(look_of(look.see)) for look in looks))
    observe = observer(compile=True, device=device, parts=parts) if compile else None
    terms = tuple(Term(*look, num) for look, num in zip(looks, nums, strict=True))
    embedder = Embedder(store, augment, terms, observe, precision, batch_size, device)
    done = _pairs(embedder, manifest, pool, draws, out, like, progress)
    finished = Sketch(manifest, _stacked(done), augment=augment, pool=pool)
    if out is not None:
        finished.save(out)
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
    return finished.to(device)


def _must_count(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"{name} = {value}: give at least 1")


def _pairs(
    embedder: Embedder,
    manifest: Manifest,
    pool: FixedPool,
    draws: list[list[AugmentDraw]],
    out: str | Path | None,
    like: Sketch | None,
    progress: bool,
) -> list[dict[str, Tensor]]:
    """Every pair's tensors: read where a former run left them, else computed and left."""
    partial = None if out is None else Path(f"{out}.partial")
    done: list[dict[str, Tensor]] = []
    a_pair = len(_rows(embedder.store, manifest.images_per_pair, manifest.seed, "subset", 0)) * len(embedder.passes)
    total = a_pair * manifest.num_pairs
    with tqdm(total=total, unit="img", unit_scale=True, desc="sketch", disable=not progress) as bar:
        for pair in range(manifest.num_pairs):
            file = None if partial is None else partial / f"pair-{pair:05d}.safetensors"
            if file is not None and file.exists():
                done.append(_left(file, manifest, like, pair))
                bar.update(a_pair)
                continue
            done.append(_pair(embedder, manifest, pool.network(pair % pool.num), draws[pair], pair, like, bar.update))
            if file is not None:
                write(file, done[-1], manifest.digest())
    return done


def _pair(
    embedder: Embedder,
    manifest: Manifest,
    net: Network,
    draws: list[AugmentDraw],
    pair: int,
    like: Sketch | None,
    advance: Callable[[int], object],
) -> dict[str, Tensor]:
    """All terms' tensors of one pair, with the kernel lengths of ``like`` or, if None, its own."""
    store, seed = embedder.store, manifest.seed
    scales: list[list[Tensor]] = [[] for _ in embedder.terms]
    if like is not None:
        scales = [[scale[pair].cpu() for scale in term.scales] for term in like.held.terms]
    elif any(term.keeps_lengths for term in embedder.terms):
        scales = embedder.lengths(net, draws, _rows(store, _CALIBRATION_IMAGES, seed, "calibrate", pair))
    rows = _rows(store, manifest.images_per_pair, seed, "subset", pair)
    rng = functools.partial(stream, seed, "landmarks", pair)
    held = embedder.pair(net, draws, rows, scales, advance, rng)
    return {f"{term_prefix(term)}{name}": each for term, its in enumerate(held) for name, each in its.items()}


def _left(file: Path, manifest: Manifest, like: Sketch | None, pair: int) -> dict[str, Tensor]:
    tensors, digest = read(file)
    lengths = {
        f"{term_prefix(term)}scales.{layer}": scale[pair].cpu()
        for term, held in enumerate(() if like is None else like.held.terms)
        for layer, scale in enumerate(held.scales)
    }
    # Only where the parts agree are there the same layers to compare.
    if digest != manifest.digest() or not all(torch.equal(tensors[name], scale) for name, scale in lengths.items()):
        raise BundleError(
            f"{file.parent} was left by another sketch (data, seed or parts differ): delete it or change out"
        )
    _log.info("%s was left by a former run and is taken over", file)
    return tensors


def _rows(store: ClassStore, per_class: int | None, seed: int, purpose: str, pair: int) -> Tensor:
    """Store indices of at most ``per_class`` keyed random images of each class, class by class."""
    if per_class is None:
        return torch.arange(len(store))
    counts = enumerate(store.counts)
    return torch.cat([store.pick(c, min(per_class, count), stream(seed, purpose, pair, c)) for c, count in counts])


def _manifest(
    store: ClassStore,
    pool: FixedPool,
    looks: Sequence[Look],
    augment: Augment,
    draws: list[list[AugmentDraw]],
    *,
    seed: int,
    images_per_pair: int | None,
    precision: str,
) -> Manifest:
    spec, terms = store.spec, [{"see": describe(see), "by": describe(by)} for see, by in looks]
    return Manifest(
        see=terms[0]["see"],
        by=terms[0]["by"],
        plus=terms[1:],
        pool=pool.described(),
        augment=describe(augment),
        seed=seed,
        num_pairs=len(draws),
        images_per_pair=images_per_pair,
        draws=[augmentation.dump(draw) for draw in draws],
        fingerprints=[fingerprint(pool.network(index)) for index in range(min(pool.num, len(draws)))],
        data={name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(spec).items()},
        history=[f"+{spec.name} {spec.fingerprint} ({len(store)} images)"],
        precision=precision,
    )


def _stacked(done: list[dict[str, Tensor]]) -> Held:
    """All pairs as one; each layer's tensors are let go once they are together, so that they lie there once."""
    return Held.of({name: torch.stack([pair.pop(name) for pair in done]) for name in list(done[0])})
