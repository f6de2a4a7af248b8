"""The verb ``sketch``: embed the whole real set once under fixed (network, augmentation draw) pairs."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from latentdc.networks.compiled import Observe, Observed, observer, precision_context
from latentdc.representations import Representation
from latentdc.seeding import stream
from latentdc.sketch.artefact import Sketch
from latentdc.sketch.files import read, write
from latentdc.sketch.manifest import Manifest, describe, must_be_sketchable
from latentdc.types import Batch

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
    batch_size: int = 500,
    precision: str = "fp32",
    compile: bool = False,
    device: torch.device | str = "cpu",
    out: str | Path | None = None,
    like: Sketch | None = None,
    progress: bool = True,
) -> Sketch:
    """Sums and counts, per pair and class, of what ``see`` shows of the whole real set.

    Pair i is network ``i % pool.num`` with its own augmentation draw, shared by all classes and images.

    Args:
        store: the real images; classes may be empty (a shard).
        pool: the networks.
        augment: the augmentation; what would change a label of this data set is left out of it.
        see: what of the networks is summed.
        by: the discrepancy the sketch will serve; decides the form of the sums.
        num_pairs: number of pairs; None is one per network.
        seed: of the augmentation draws, the subsets and the later walk through the pairs.
        images_per_pair: a keyed random subset of each class for each pair, or None for all images.
        batch_size: images at a time.
        precision: ``"fp32"`` or ``"bf16"`` for the forward passes; sums are float64 in any case.
        compile: compile the forward pass (about three times as fast on a CPU, after half a minute).
        device: where to compute.
        out: file to write. Finished pairs are kept beside it, in ``<out>.partial``, until it is written, so that a
            run that was cut off goes on where it stopped.
        like: another sketch whose kernel lengths to use, so that the two can be merged or subtracted.
        progress: show a progress bar on standard error.

    Raises:
        InputError: the discrepancy cannot be sketched, or a number is out of range.
        BundleError: the partial folder beside ``out`` belongs to another sketch.
    """
    must_be_sketchable(see, by)
    num_pairs = pool.num if num_pairs is None else num_pairs
    for name, value in {"num_pairs": num_pairs, "batch_size": batch_size, "images_per_pair": images_per_pair}.items():
        if value is not None and value < 1:
            raise InputError(f"{name} = {value}: give at least 1")
    if not isinstance(pool, FixedPool):
        raise InputError(f"{type(pool).__name__}: a sketch needs a fixed pool of networks; set the pool to fixed")
    augment = augment.for_data(store.spec)
    draws = [
        augment.draw(1, store.spec.image_shape, stream(seed, "augment", index=pair), shared=True)
        for pair in range(num_pairs)
    ]
    manifest = _manifest(store, pool, augment, draws, seed=seed, images_per_pair=images_per_pair, precision=precision)
    manifest = dataclasses.replace(manifest, see=describe(see), by=describe(by))
    if like is not None and (wrong := manifest.differences(like.manifest)):
        raise InputError(f"`like` was not taken alike: {'; '.join(wrong)}")
    device = device_of(device)
    pool.to(device)
    observe = observer(compile=compile, device=device)
    embedder = _Embedder(store, augment, see, by, observe, precision, batch_size, device)
    partial = None if out is None else Path(f"{out}.partial")
    done = _pairs(embedder, manifest, pool, draws, partial, like, progress)
    finished = _stack(manifest, done, augment, pool)
    if out is not None:
        finished.save(out)
        shutil.rmtree(f"{out}.partial", ignore_errors=True)
    return finished.to(device)


@dataclass(frozen=True)
class _Embedder:
    """Sums of one pair after another."""

    store: ClassStore
    augment: Augment
    see: Representation
    by: Discrepancy
    run: Observe
    precision: str
    batch_size: int
    device: torch.device

    def layers(
        self, net: Network, draws: list[AugmentDraw], rows: Tensor
    ) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Owners ``(n,)`` and points per layer of some images, a batch at a time."""
        observed = Observed(net, self.run)
        for part in torch.split(rows, self.batch_size):
            # A short last batch is filled up: a compiled network then meets one shape only.
            short = self.batch_size - len(part) if len(rows) > self.batch_size else 0
            batch = self.store.batch(torch.cat([part, part[:1].expand(short)]) if short else part)
            x, owner = batch.x.to(self.device), batch.owner[: len(part)].to(self.device)
            x = self.augment.apply(x, draws, self.store.spec)
            with torch.no_grad(), precision_context(self.precision, self.device):
                seen = self.see(observed, Batch(x, batch.y, batch.owner), differentiable=False)
            yield owner, tuple(points[: len(part)].float() for points in seen)

    def scales(self, net: Network, draws: list[AugmentDraw], rows: Tensor) -> list[Tensor]:
        """Kernel lengths ``(k,)`` of each layer from some images."""
        owners, points = zip(*self.layers(net, draws, rows), strict=True)
        owner, num_classes = torch.cat(owners), self.store.spec.num_classes
        found = [self.by.lengths(torch.cat(layer), owner, num_classes) for layer in zip(*points, strict=True)]
        return [lengths.double().cpu() for lengths in found if lengths is not None]

    def sums(
        self,
        net: Network,
        draws: list[AugmentDraw],
        rows: Tensor,
        scales: list[Tensor],
        advance: Callable[[int], object],
    ) -> dict[str, Tensor]:
        """Tensors of one pair: ``counts`` ``(k,)``, ``sums.L`` ``(k, d)``, ``scales.L`` ``(k,)``."""
        held = {f"scales.{layer}": scale for layer, scale in enumerate(scales)}
        for owner, seen in self.layers(net, draws, rows):
            for layer, points in enumerate(seen):
                scale = scales[layer].to(self.device) if scales else None
                # Images come class by class, so a batch concerns few of them.
                first, last = int(owner[0]), int(owner[-1]) + 1
                part = self.by.summarise(
                    points, owner - first, last - first, scale=None if scale is None else scale[first:last]
                )
                for name, value in {f"sums.{layer}": part.values, "counts": part.counts}.items():
                    if name == "counts" and layer > 0:
                        continue
                    shape = (self.store.spec.num_classes, *value.shape[1:])
                    held.setdefault(name, torch.zeros(shape, dtype=torch.float64))[first:last] += value.cpu()
            advance(len(owner))
        return held


def _pairs(
    embedder: _Embedder,
    manifest: Manifest,
    pool: FixedPool,
    draws: list[list[AugmentDraw]],
    partial: Path | None,
    like: Sketch | None,
    progress: bool,
) -> list[dict[str, Tensor]]:
    """Every pair's tensors: read where a former run left them, else computed and left."""
    store, done = embedder.store, []
    per_pair = len(_rows(store, manifest.images_per_pair, manifest.seed, "subset", 0))
    total = per_pair * manifest.num_pairs
    with tqdm(total=total, unit="img", unit_scale=True, desc="sketch", disable=not progress) as bar:
        for pair in range(manifest.num_pairs):
            file = None if partial is None else partial / f"pair-{pair:05d}.safetensors"
            if file is not None and file.exists():
                done.append(_left(file, manifest, like, pair))
                bar.update(per_pair)
                continue
            net = pool.network(pair % pool.num)
            scales: list[Tensor] = []
            if like is not None:
                scales = [scale[pair].cpu() for scale in like.scales]
            elif embedder.by.calibrated:
                rows = _rows(store, _CALIBRATION_IMAGES, manifest.seed, "calibrate", pair)
                scales = embedder.scales(net, draws[pair], rows)
            rows = _rows(store, manifest.images_per_pair, manifest.seed, "subset", pair)
            done.append(embedder.sums(net, draws[pair], rows, scales, bar.update))
            if file is not None:
                write(file, done[-1], manifest.digest())
    return done


def _left(file: Path, manifest: Manifest, like: Sketch | None, pair: int) -> dict[str, Tensor]:
    tensors, digest = read(file)
    lengths = [] if like is None else [scale[pair].cpu() for scale in like.scales]
    # Only where the parts agree are there the same layers to compare.
    if digest != manifest.digest() or not all(
        torch.equal(tensors[f"scales.{layer}"], scale) for layer, scale in enumerate(lengths)
    ):
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
    augment: Augment,
    draws: list[list[AugmentDraw]],
    *,
    seed: int,
    images_per_pair: int | None,
    precision: str,
) -> Manifest:
    spec = store.spec
    return Manifest(
        see={},
        by={},
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


def _stack(manifest: Manifest, done: list[dict[str, Tensor]], augment: Augment, pool: FixedPool) -> Sketch:
    def of(kind: str) -> list[Tensor]:
        layers = sum(name.startswith(f"{kind}.") for name in done[0])
        return [torch.stack([pair[f"{kind}.{layer}"] for pair in done]) for layer in range(layers)]

    counts = torch.stack([pair["counts"] for pair in done])
    return Sketch(manifest, of("sums"), counts, of("scales"), augment=augment, pool=pool)
