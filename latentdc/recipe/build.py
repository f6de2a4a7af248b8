"""From a recipe and a data set to the parts of a run: the building blocks that the pipelines put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.accelerator import Accelerator
from torch import nn

from latentdc.data.augment import Augment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import resolve_decoder
from latentdc.discrepancies import Discrepancy
from latentdc.errors import InputError, RecipeError
from latentdc.initialise import initialise
from latentdc.networks import FixedPool, FreshPool
from latentdc.networks import build as build_network
from latentdc.networks.pool import fingerprint
from latentdc.objectives import Match
from latentdc.portable.bank import LatentBank
from latentdc.recipe.parts import make_part
from latentdc.recipe.spec import Recipe
from latentdc.representations import Representation
from latentdc.sketch import Sketch, sketch
from latentdc.source import Minibatches, Source
from latentdc.types import DataSpec, Decoder, Formation

_FREE = ("name", "title", "cite", "steps", "storage")
"""Keys that do not decide what a step does. A cosine schedule adds ``steps`` in ``condense``; storage comes after."""


@dataclass(frozen=True)
class Built:
    """The parts a recipe names, made for one data set."""

    recipe: Recipe
    spec: DataSpec
    decoder: Decoder
    formation: Formation | None
    objective: Match
    augment: Augment
    counts: tuple[int, ...]
    """Stored rows of each class."""

    @property
    def see(self) -> Representation:
        """What of a network is looked at."""
        return self.objective.see

    @property
    def by(self) -> Discrepancy:
        """The discrepancy."""
        return self.objective.by


def build(recipe: Recipe, spec: DataSpec, *, decoder: Decoder | None = None) -> Built:
    """Make the parts a recipe names.

    Args:
        recipe: the recipe.
        spec: the data set's description.
        decoder: a decoder of one's own, instead of the one the recipe names.

    Raises:
        RecipeError: parts that do not fit each other or the data, or a budget below one row.
        InputError: no decoder fits the data.
        BundleError: the decoder's checkpoint is damaged.
    """
    if recipe.objective.kind != "match":
        raise RecipeError(f'objective.kind = "{recipe.objective.kind}": the only objective so far is "match".')
    if decoder is None:
        decoder = cast(Decoder, resolve_decoder(None if recipe.decoder == "default" else recipe.decoder, spec))
    formation = None if recipe.formation is None else make_part("formation", recipe.formation)
    if formation is not None:
        _check_formation(formation, spec)
    augment: Augment = make_part("augment", recipe.augment).for_data(spec)
    see = make_part("objective.see", recipe.objective.see)
    by = make_part("objective.by", recipe.objective.by)
    if recipe.source.kind == "sketch" and not by.sketchable:
        raise RecipeError(
            f'source.kind = "sketch" and objective.by = "{recipe.objective.by.kind}": a sketch holds sums, from which '
            'this discrepancy cannot be computed. Use "rff" (the sketchable form of "mmd"), or source.kind = '
            '"minibatches".'
        )
    rows = recipe.rows_per_class(decoder.latent_shapes)
    return Built(recipe, spec, decoder, formation, Match(see, by), augment, (rows,) * spec.num_classes)


def make_source(
    built: Built,
    store: ClassStore,
    *,
    given: Sketch | str | Path | None = None,
    out: str | Path | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Source:
    """The real side: mini-batches, a sketch that was given, or a sketch taken now.

    Args:
        built: the parts.
        store: the real images.
        given: a sketch or its file; it replaces whatever source the recipe names.
        out: where a sketch taken now is written; an interrupted one goes on from there.
        device: where a sketch is computed.
        progress: show a bar on standard error.

    Raises:
        InputError: the given sketch was taken of other data, or for another objective.
    """
    recipe, spec = built.recipe, built.spec
    if given is not None:
        return _fitting(given if isinstance(given, Sketch) else Sketch.load(given), built)
    wanted = recipe.source
    if wanted.kind == "minibatches":
        pool = FreshPool(wanted.arch, spec, recipe.seed, wanted.width)
        sampler = UniformSampler(store, wanted.num_per_class)
        return Minibatches(store, sampler, pool, built.augment, seed=recipe.seed)
    if out is not None and Path(out).exists():
        return _as_asked(_fitting(Sketch.load(out), built), recipe, out)
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
        compile=wanted.compile,
        device=device,
        out=out,
        progress=progress,
    )


def make_bank(built: Built, store: ClassStore | None = None) -> LatentBank:
    """The latents a run starts from.

    Raises:
        InputError: the start needs real images or an encoder that is not there.
    """
    recipe = built.recipe
    net = build_network(recipe.source.arch, built.spec, seed=recipe.seed, width=recipe.source.width, purpose="init")
    return initialise(
        recipe.init,
        built.decoder,
        built.counts,
        seed=recipe.seed,
        store=store,
        net=net if recipe.init == "medoids" else None,
        formation=built.formation,
    )


def make_accelerator(recipe: Recipe, *, cpu: bool = False) -> Accelerator:
    """Device, precision and processes of a run; started by ``torchrun`` it spans several processes."""
    return Accelerator(mixed_precision="bf16" if recipe.precision == "bf16" else "no", cpu=cpu)


def identity(built: Built, *, source: Source | None = None) -> dict[str, Any]:
    """What a checkpoint must agree in to be resumed: every key that decides a step, the data, the decoder's weights."""
    flat = {name: value for name, value in built.recipe.flat().items() if name not in _FREE}
    if isinstance(source, Sketch):
        flat = {name: value for name, value in flat.items() if not name.startswith("source.")}
        flat["source.sketch"] = source.manifest.digest()
    return {
        **flat,
        "data.name": built.spec.name,
        "data.fingerprint": built.spec.fingerprint,
        "decoder.sha256": fingerprint(built.decoder) if isinstance(built.decoder, nn.Module) else "",
    }


def _check_formation(formation: Formation, spec: DataSpec) -> None:
    try:
        formation(torch.zeros(1, *spec.image_shape))
    except ValueError as error:
        raise RecipeError(f"formation: {error}") from error


def _fitting(taken: Sketch, built: Built) -> Sketch:
    """The sketch, if it is of these data and this objective."""
    mine, its = built.spec, taken.spec
    for name in ("image_shape", "class_names", "fingerprint"):
        if getattr(mine, name) != getattr(its, name):
            raise InputError(
                f'the sketch was taken of other data: its {name} is {getattr(its, name)!r} ("{its.name}"), here it is '
                f'{getattr(mine, name)!r} ("{mine.name}"). Give the data it was taken of, or take another sketch.'
            )
    taken.must_hold(built.see, built.by)
    return taken


def _as_asked(taken: Sketch, recipe: Recipe, path: str | Path) -> Sketch:
    """A sketch left by an earlier run, if the recipe would take the same one again."""
    wanted, its = recipe.source, taken.manifest
    asked = {
        "source.num_pairs": (wanted.num_pairs, its.num_pairs),
        "source.images_per_pair": (wanted.images_per_pair, its.images_per_pair),
        "source.arch": (wanted.arch, its.pool.get("arch")),
        "source.width": (wanted.width, its.pool.get("width")),
        "seed": (recipe.seed, its.seed),
    }
    wrong = [f"{name} is {mine!r}, was {theirs!r}" for name, (mine, theirs) in asked.items() if mine != theirs]
    if wrong:
        raise InputError(
            f"{path} holds a sketch that was taken otherwise: {'; '.join(wrong)}. Give it as the sketch to use it "
            "nevertheless, or take the new one into another folder."
        )
    return taken
