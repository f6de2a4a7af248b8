"""From a recipe and a data set to the parts of a run: the building blocks that the pipelines put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from latentdc.bundle import shared_bytes
from latentdc.data.augment import Augment
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Discrepancy
from latentdc.initialise import initialise, start_images
from latentdc.labels import Lesson, begun
from latentdc.latents import AnyBank
from latentdc.networks import Network, PretrainedPool
from latentdc.networks import build as build_network
from latentdc.objectives import Objective, Penalised
from latentdc.portable.bank import LatentBank
from latentdc.recipe.checks import (
    check_classifier,
    check_formation,
    check_labels,
    check_looks,
    check_shown,
    check_source,
    check_start,
    learned,
    learns_labels,
)
from latentdc.recipe.decoder import decoder_identity, decoder_text, with_decoder
from latentdc.recipe.parts import make_part, part_class
from latentdc.recipe.spec import Part, Recipe
from latentdc.representations import Representation
from latentdc.sketch import Sketch
from latentdc.source import Look, Source, Started
from latentdc.types import Batch, DataSpec, Decoder, Formation

_FREE = ("name", "title", "cite", "decoder", "steps", "storage", "compile", "labels")
"""Keys that do not decide what a step does, or that another entry states better (a decoder's weights for its name).
A cosine schedule adds ``steps`` in ``condense``; storage comes after, and so do labels unless they are learned."""
_PLACES = ("source.pool.options.model", "source.pool.options.weights")
_LATER = (
    *("objective.weights", "objective.plus", "objective.penalties"),
    *("source.sampler", "source.pool", "source.train_augment", "source.cut_mix", "source.landmarks"),
)
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
    plus: tuple[tuple[Representation, Discrepancy], ...] = ()
    """The same of the objective's further matches."""
    pretrained: PretrainedPool | None = None
    """The pool of the network that others trained, where the recipe names one: loaded once, when first asked for."""

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
    terms = recipe.objective.terms
    looks = [Look(make_part("objective.see", term.see), make_part("objective.by", term.by)) for term in terms]
    check_looks(recipe, looks)
    check_source(recipe)
    check_classifier(recipe, looks)
    pretrained = _pretrained(recipe, spec)
    check_shown(recipe, looks, spec, pretrained)
    shared = shared_bytes(decoder, formation) / spec.num_classes
    rows = recipe.rows_per_class(decoder.latent_shapes, shared, num_classes=spec.num_classes)
    kind = recipe.objective.kind
    matches = [
        make_part("objective.kind", Part(kind, {"weights": term.weights} if term.weights else {}), *look)
        for term, look in zip(terms, looks, strict=True)
    ]
    matches += [make_part("objective.penalties", each) for each in recipe.objective.penalties]
    objective: Objective = matches[0] if len(matches) == 1 else Penalised(matches[0], matches[1:])
    check_start(recipe, objective)
    check_labels(recipe, [see for see, _ in looks], objective, spec)
    recipe.optim.must_fit(learned(recipe, decoder, formation, objective))
    counts = (rows,) * spec.num_classes
    return Built(recipe, spec, decoder, formation, *looks[0], objective, augment, counts, tuple(looks[1:]), pretrained)


def _pretrained(recipe: Recipe, spec: DataSpec) -> PretrainedPool | None:
    """The recipe's pool, if it is made of one network that others trained."""
    part = recipe.source.pool
    if not issubclass(part_class("source.pool", part), PretrainedPool):
        return None
    pool: PretrainedPool = make_part("source.pool", part, recipe.source.arch, spec, recipe.seed)
    pool.must_be_there()
    return pool


def make_bank(
    built: Built, store: ClassStore | None = None, *, device: torch.device | str = "cpu", progress: bool = False
) -> AnyBank:
    """The latents a run starts from, with labels if these are learned; or a distribution of them.

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
    recipe = built.recipe
    bank = initialise(
        make_part("init", recipe.init),
        built.decoder,
        built.counts,
        seed=recipe.seed,
        store=store,
        net=_start_network(built),
        formation=built.formation,
        device=device,
        progress=progress,
    )
    if not learns_labels(recipe) or not isinstance(bank, LatentBank):
        return bank
    lesson = None if store is None else Lesson(store, recipe.seed, device, recipe.precision, recipe.compile)
    return begun(make_part("labels", recipe.labels), bank, built.decoder, built.formation, lesson)


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
    if built.pretrained is not None:
        return built.pretrained.network(0)
    return build_network(wanted.arch, built.spec, seed=built.recipe.seed, width=wanted.width, purpose="init")


def start_identity(recipe: Recipe) -> dict[str, Any]:
    """What a run is known by in place of options of its start that say where something lies; see ``Start``."""
    known: dict[str, Any] = getattr(make_part("init", recipe.init), "identity", dict)()
    return {f"init.options.{name}": value for name, value in known.items()}


def identity(built: Built, *, source: Source | None = None) -> dict[str, Any]:
    """What a checkpoint must agree in to be resumed: every key that decides a step, the data, decoder and settings."""
    free = [name for name in _FREE if name != "labels" or not learns_labels(built.recipe)]
    flat = {name: value for name, value in built.recipe.flat().items() if name.split(".")[0] not in free}
    # What is not there decides nothing, today or in a run begun before it existed.
    absent = Recipe(images_per_class=1).flat()
    flat = {name: value for name, value in flat.items() if not name.startswith(_LATER) or value != absent.get(name)}
    flat |= start_identity(built.recipe)
    if built.pretrained is not None:  # their weights say which they are, not where they lie
        flat = {name: value for name, value in flat.items() if name not in _PLACES}
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
