"""From a recipe and a data set to the parts of a run: the building blocks that the pipelines put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentdc.bundle import shared_bytes
from latentdc.data.augment import Augment, per_image
from latentdc.data.cut_mix import CutMix
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Discrepancy
from latentdc.errors import InputError
from latentdc.initialise import initialise, start_images
from latentdc.latents import AnyBank
from latentdc.networks import FixedPool, Network, Pool, Trainer
from latentdc.networks import build as build_network
from latentdc.objectives import Objective, Penalised
from latentdc.recipe.checks import check_formation, check_looks, check_start, learned
from latentdc.recipe.decoder import decoder_identity, decoder_text, with_decoder
from latentdc.recipe.parts import make_part, part_class
from latentdc.recipe.sketched import as_asked, near
from latentdc.recipe.spec import Part, Recipe
from latentdc.representations import Representation
from latentdc.sketch import Sketch, sketch
from latentdc.source import Minibatches, Source, Started
from latentdc.types import Batch, DataSpec, Decoder, Formation

_FREE = ("name", "title", "cite", "decoder", "steps", "storage", "compile")
"""Keys that do not decide what a step does, or that another entry states better (a decoder's weights for its name).
A cosine schedule adds ``steps`` in ``condense``; storage comes after."""
_LATER = ("objective.penalties", "source.sampler", "source.pool", "source.train_augment", "source.cut_mix")
"""Keys that came after the first release."""
_ADAPT_IMAGES = 500
"""Real images of each class that a decoder stored with the set is adapted to, at most."""


@dataclass(frozen=True)
class Built:
    """The parts a recipe names, made for one data set."""

    recipe: Recipe
    """The recipe as it is run: ``decoder`` is the name of the one that was found."""
    spec: DataSpec
    decoder: Decoder
    formation: Formation | None
    see: Representation
    """What of a network is looked at."""
    by: Discrepancy
    """How two sets of it are compared."""
    objective: Objective
    augment: Augment
    counts: tuple[int, ...]
    """Stored rows of each class."""

    @property
    def decoder_name(self) -> str:
        """The decoder as another machine knows it: a public or shipped name, or a folder's name and the sha256.

        Settings that were asked for stand behind it.
        """
        return decoder_text(self.recipe.decoder)

    @property
    def shared_per_class(self) -> float:
        """A class's share of what formation and decoder add to the set, in bytes."""
        return shared_bytes(self.decoder, self.formation) / self.spec.num_classes


def build(recipe: Recipe, spec: DataSpec, *, decoder: Decoder | None = None, decoder_name: str | None = None) -> Built:
    """Make the parts a recipe names.

    Args:
        recipe: the recipe.
        spec: the data set's description.
        decoder: a decoder of one's own, instead of the one the recipe names.
        decoder_name: where it can be had, for instance ``owner/name@revision``; found out if left out.

    Raises:
        RecipeError: parts that do not fit each other or the data, or a budget below one row.
        InputError: no decoder fits the data.
        BundleError: the decoder's checkpoint is damaged.
    """
    part_class("objective.kind", Part(recipe.objective.kind))
    decoder, recipe = with_decoder(recipe, spec, decoder, decoder_name)
    formation = None if recipe.formation is None else make_part("formation", recipe.formation, spec=spec)
    if formation is not None:
        check_formation(formation, spec)
    augment: Augment = make_part("augment", recipe.augment).for_data(spec)
    see = make_part("objective.see", recipe.objective.see)
    by = make_part("objective.by", recipe.objective.by)
    check_looks(recipe, see, by)
    rows = recipe.rows_per_class(decoder.latent_shapes, shared_bytes(decoder, formation) / spec.num_classes)
    objective: Objective = make_part("objective.kind", Part(recipe.objective.kind), see, by)
    if recipe.objective.penalties:
        objective = Penalised(
            objective, [make_part("objective.penalties", each) for each in recipe.objective.penalties]
        )
    check_start(recipe, objective)
    recipe.optim.must_fit(learned(decoder, formation, objective))
    return Built(recipe, spec, decoder, formation, see, by, objective, augment, (rows,) * spec.num_classes)


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
        progress: show a bar on standard error.

    Raises:
        InputError: the given sketch was taken of other data, or for another objective.
    """
    recipe, spec = built.recipe, built.spec
    if given is not None:
        return _fitting(given if isinstance(given, Sketch) else Sketch.load(given), built, store)
    wanted = recipe.source
    if wanted.kind == "minibatches":
        sampler = make_part("source.sampler", wanted.sampler, store, wanted.num_per_class)
        return Minibatches(store, sampler, _pool(built, store), built.augment, seed=recipe.seed)
    if out is not None and Path(out).exists():
        return as_asked(_fitting(Sketch.load(out), built, store), recipe, out)
    return sketch(
        store,
        FixedPool(wanted.arch, spec, recipe.seed, wanted.num_pairs, wanted.width),
        built.augment,
        built.see,
        built.by,
        num_pairs=wanted.num_pairs,
        seed=recipe.seed,
        images_per_pair=wanted.images_per_pair,
        batch_size=wanted.batch_size,
        precision=recipe.precision,
        compile=recipe.compile,
        device=device,
        out=out,
        like=like,
        progress=progress,
    )


def _pool(built: Built, store: ClassStore) -> Pool:
    """The networks of mini-batches: those of a pool that trains them see the store's images."""
    recipe, wanted = built.recipe, built.recipe.source
    part = wanted.pool
    if wanted.width is not None:
        part = Part(part.kind, {**part.options, "width": wanted.width})
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
            ),
        )
    pool: Pool = make_part("source.pool", part, *made_of)
    return pool


def make_bank(
    built: Built, store: ClassStore | None = None, *, device: torch.device | str = "cpu", progress: bool = False
) -> AnyBank:
    """The latents a run starts from, or a distribution of them.

    Args:
        built: the parts.
        store: the real images.
        device: where to encode and invert.
        progress: show a bar where it takes long.

    Raises:
        InputError: the start needs real images or an encoder that is not there.
    """
    adapt: Callable[[torch.Tensor, torch.Tensor], None] | None = getattr(built.decoder, "adapt", None)
    if adapt is not None and store is not None:
        some = store.limit(min(_ADAPT_IMAGES, *store.counts))
        adapt(some.images.cpu().float() / 255, some.labels.cpu())
    return initialise(
        make_part("init", built.recipe.init),
        built.decoder,
        built.counts,
        seed=built.recipe.seed,
        store=store,
        net=_start_network(built),
        formation=built.formation,
        device=device,
        progress=progress,
    )


def with_start(built: Built, source: Source, store: ClassStore, *, device: torch.device | str = "cpu") -> Source:
    """The source, with the real images that the rows of ``make_bank`` start from if the objective looks at them.

    A formation takes apart what it packed: each of a row's images has its own.
    """
    if not built.objective.needs_start:
        return source
    start = start_batch(built, store, device=device)
    assert start is not None, "build refuses a start without images"
    if built.formation is None:
        return Started(source, start.x)
    with torch.no_grad():
        return Started(source, built.formation(start.x), built.formation.expands)


def start_batch(built: Built, store: ClassStore, *, device: torch.device | str = "cpu") -> Batch | None:
    """The real images that the rows of ``make_bank`` on the same device start from, or None where there are none."""
    return start_images(
        make_part("init", built.recipe.init),
        built.decoder,
        built.counts,
        seed=built.recipe.seed,
        store=store,
        net=_start_network(built),
        formation=built.formation,
        device=device,
    )


def _start_network(built: Built) -> Network:
    wanted = built.recipe.source
    return build_network(wanted.arch, built.spec, seed=built.recipe.seed, width=wanted.width, purpose="init")


def identity(built: Built, *, source: Source | None = None) -> dict[str, Any]:
    """What a checkpoint must agree in to be resumed: every key that decides a step, the data, decoder and settings."""
    flat = {name: value for name, value in built.recipe.flat().items() if name.split(".")[0] not in _FREE}
    # What is not there decides nothing, today or in a run begun before it existed.
    absent = Recipe(images_per_class=1).flat()
    flat = {name: value for name, value in flat.items() if not name.startswith(_LATER) or value != absent.get(name)}
    if isinstance(source, Sketch):
        flat = {name: value for name, value in flat.items() if not name.startswith("source.")}
        flat["source.sketch"] = source.manifest.digest()
    return {
        **flat,
        "data.name": built.spec.name,
        "data.fingerprint": built.spec.fingerprint,
        "data.mirror": built.spec.mirror,
        "data.mean": list(built.spec.mean),
        "data.std": list(built.spec.std),
        **decoder_identity(built.decoder),
    }


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
    taken.must_hold(built.see, built.by)
    taken.offer(built.augment)
    return taken
