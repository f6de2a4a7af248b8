"""The real side a recipe names: mini-batches under a pool of networks, or a sketch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from latentdc.data.augment import Augment, per_image
from latentdc.data.cut_mix import CutMix
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.networks import FixedPool, FreshPool, Pool, Trainer
from latentdc.recipe.build import Built
from latentdc.recipe.parts import make_part, part_class
from latentdc.recipe.sketched import as_asked, near
from latentdc.sketch import Sketch, sketch
from latentdc.source import Minibatches, Source


def make_source(
    built: Built,
    store: ClassStore,
    *,
    given: Sketch | str | Path | None = None,
    like: Sketch | None = None,
    out: str | Path | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Source:
    """The real side: mini-batches, a sketch that was given, or a sketch taken now.

    Args:
        built: the parts.
        store: the real images.
        given: a sketch or its file; it replaces whatever source the recipe names.
        like: a sketch whose kernel lengths one taken now uses, so that the two can be merged or subtracted.
        out: where a sketch taken now is written; an interrupted one goes on from there.
        device: where a sketch is computed.
        progress: show a bar on standard error: of the sketch, and of networks that take long to train.

    Raises:
        InputError: the given sketch was taken of other data, or for another objective.
    """
    recipe = built.recipe
    if given is not None:
        return _fitting(given if isinstance(given, Sketch) else Sketch.load(given), built, store)
    wanted = recipe.source
    if wanted.kind == "minibatches":
        sampler = make_part("source.sampler", wanted.sampler, store, wanted.num_per_class)
        return Minibatches(store, sampler, _pool(built, store, progress), built.augment, seed=recipe.seed)
    if out is not None and Path(out).exists():
        return as_asked(_fitting(Sketch.load(out), built, store), recipe, out)
    return sketch(
        store,
        fixed_pool(built, wanted.num_pairs),
        built.augment,
        built.see,
        built.by,
        num_pairs=wanted.num_pairs,
        seed=recipe.seed,
        images_per_pair=wanted.images_per_pair,
        landmarks=wanted.landmarks,
        plus=built.plus,
        batch_size=wanted.batch_size,
        precision=recipe.precision,
        compile=recipe.compile,
        device=device,
        out=out,
        like=like,
        progress=progress,
    )


def plain_source(built: Built, store: ClassStore, source: Source, *, device: torch.device | str = "cpu") -> Source:
    """What rows are looked at under, one by one: a sketch of points as it is; in place of others plain mini-batches.

    Networks that train, and images chosen by them, follow from the steps before and end with the run; a sketch of
    parameters, which are a class's, does not hold what a row can be compared with.
    """
    recipe, wanted = built.recipe, built.recipe.source
    if wanted.kind == "sketch" and built.see.kind == "points":
        return source
    pool = built.pretrained or FreshPool(wanted.arch, built.spec, recipe.seed, wanted.width)
    sampler = UniformSampler(store, wanted.num_per_class)
    return Minibatches(store, sampler, pool, built.augment, seed=recipe.seed).to(device)


def fixed_pool(built: Built, num: int) -> FixedPool:
    """The networks of a sketch: one that others trained, or ``num`` made for it."""
    recipe, wanted = built.recipe, built.recipe.source
    return built.pretrained or FixedPool(wanted.arch, built.spec, recipe.seed, num, wanted.width)


def _pool(built: Built, store: ClassStore, progress: bool) -> Pool:
    """The networks of mini-batches: those of a pool that trains them see the store's images."""
    recipe, wanted = built.recipe, built.recipe.source
    if built.pretrained is not None:
        return built.pretrained
    part = wanted.pool
    made_of: tuple[Any, ...] = (wanted.arch, built.spec, recipe.seed)
    if part_class("source.pool", part).needs_trainer:
        seen: Augment = make_part("source.train_augment", wanted.train_augment).for_data(built.spec)
        made_of += (
            Trainer(
                store.images,
                store.labels,
                built.spec.num_classes,
                augment=per_image(seen, built.spec),
                mix=CutMix(wanted.cut_mix) if wanted.cut_mix else None,
                precision=recipe.precision,
                compile=recipe.compile,
                progress=progress,
            ),
        )
    pool: Pool = make_part("source.pool", part, *made_of, filled={"width": wanted.width})
    return pool


def _fitting(taken: Sketch, built: Built, store: ClassStore) -> Sketch:
    """The sketch, if it is of these data and this objective.

    Of a merged or subtracted one nobody has seen all images at once: in place of their fingerprint, the images of each
    class are compared, and their statistics, which may be those of one part (see ``near``).
    """
    mine, its = built.spec, taken.spec
    pairs: dict[str, tuple[Any, Any]] = {
        name: (getattr(mine, name), getattr(its, name)) for name in ("image_shape", "class_names", "mirror")
    }
    if taken.whole:
        pairs["fingerprint"] = mine.fingerprint, its.fingerprint
    else:
        counts = tuple(int(count) for count in taken.counts[0].tolist())
        subset = taken.manifest.images_per_pair is not None
        here = tuple(map(min, store.counts, counts)) if subset else store.counts
        pairs["images per class"] = here, counts
        if not near(mine, its):
            pairs["mean and std"] = (mine.mean, mine.std), (its.mean, its.std)
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise InputError(
                f'the sketch was taken of other data: its {name} is {theirs!r} ("{its.name}"), here it is '
                f'{ours!r} ("{mine.name}"). Give the data it was taken of, or take another sketch.'
            )
    for look in ((built.see, built.by), *built.plus):
        taken.term(*look)
    taken.offer(built.augment, built.pretrained)
    return taken
