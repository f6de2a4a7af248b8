"""Which parts of a recipe go together: what each of them alone cannot know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from latentdc.discrepancies import Discrepancy
from latentdc.errors import InputError, RecipeError
from latentdc.labels import LearnedLabels
from latentdc.latents import learns
from latentdc.networks import Network, PretrainedPool
from latentdc.networks import build as build_network
from latentdc.objectives import Objective
from latentdc.recipe.parts import make_part, part_class
from latentdc.recipe.spec import Part, Recipe, SourceSpec
from latentdc.representations import Representation, needs_of
from latentdc.sketch import landmarks_of
from latentdc.types import Batch, DataSpec, Decoder, Formation


def check_looks(recipe: Recipe, looks: Sequence[tuple[Representation, Discrepancy]]) -> None:
    """Refuse a real side that what is looked at, and how it is compared, cannot be had from.

    Raises:
        RecipeError: with what to use instead.
    """
    if recipe.source.kind != "sketch":
        return
    try:
        landmarks_of(looks, recipe.source.landmarks)
    except InputError as error:
        terms = recipe.objective.terms
        parts = " + ".join(f'objective.see = "{term.see.kind}", objective.by = "{term.by.kind}"' for term in terms)
        raise RecipeError(f'source.kind = "sketch", {parts}: {error}.') from error


def check_classifier(recipe: Recipe, looks: Sequence[tuple[Representation, Discrepancy]]) -> None:
    """Refuse to look at class scores, or at maps, of networks that show none.

    Raises:
        RecipeError: with what to look at, or which networks to use, instead.
    """
    source = recipe.source
    if getattr(part_class("source.pool", source.pool), "has_classifier", True):
        return
    sees = zip(recipe.objective.terms, (see for see, _ in looks), strict=True)
    others = [
        *(("objective.penalties", each) for each in recipe.objective.penalties),
        ("source.sampler", source.sampler),
    ]
    parts: list[tuple[str, Part, Any]] = [("objective.see", term.see, see) for term, see in sees]
    for where, part, made in (*parts, *((where, part, part_class(where, part)) for where, part in others)):
        if getattr(made, "needs_classifier", False):
            raise RecipeError(
                f'source.pool = "{source.pool.kind}" and {where} = "{part.kind}": the network has no classifier of '
                'these data, which that looks at. Use objective.see = "features", "statistics" or "attention", leave '
                'the penalty or sampler out, or take another pool, such as "fresh".'
            )
        if "maps" in needs_of(made) and source.pool.options.get("depths") != "maps":
            raise RecipeError(
                f'source.pool = "{source.pool.kind}" and {where} = "{part.kind}": the network shows means over '
                'positions, unless the pool is told depths = "maps" (--set source.pool.depths=maps).'
            )


def check_shown(
    recipe: Recipe,
    looks: Sequence[tuple[Representation, Discrepancy]],
    spec: DataSpec,
    pretrained: PretrainedPool | None = None,
) -> None:
    """Look once, at a blank image, as the steps will: refuse what networks do not show, or another number of weights.

    Raises:
        RecipeError: with the number of weights that would do.
        InputError: the networks do not show what is looked at.
    """
    if not recipe.steps:
        return
    net, blank = _trial(recipe, spec, pretrained)
    for term, (see, _) in zip(recipe.objective.terms, looks, strict=True):
        shown = len(see(net, blank, differentiable=False))
        if len(term.weights) > 1 and len(term.weights) != shown:
            name = recipe.source.arch if pretrained is None else pretrained.model
            raise RecipeError(
                f'objective.weights = {list(term.weights)}: see = "{term.see.kind}" shows {shown} tensors of '
                f'"{name}" on images of {spec.image_shape[1]} x {spec.image_shape[2]} pixels; give as '
                "many weights, or one for all."
            )


def _trial(recipe: Recipe, spec: DataSpec, pretrained: PretrainedPool | None = None) -> tuple[Network, Batch]:
    """A network as the recipe has them, and a blank image whose target requires a gradient."""
    if pretrained is None:
        net = build_network(recipe.source.arch, spec, seed=0, width=recipe.source.width)
    else:
        net = pretrained.network(0)
    net = net.requires_grad_(False).eval()
    blank, owner = torch.zeros(1, *spec.image_shape), torch.zeros(1, dtype=torch.int64)
    target = torch.nn.functional.one_hot(owner, spec.num_classes).float()
    return net, Batch(blank, target.requires_grad_(), owner)


def check_labels(recipe: Recipe, sees: Sequence[Representation], objective: Objective, spec: DataSpec) -> None:
    """Refuse to learn labels that nothing would move.

    Raises:
        RecipeError: with what would.
    """
    if not learns_labels(recipe):
        return
    if not recipe.steps:
        raise RecipeError(
            f'labels = "{recipe.labels.kind}" and steps = 0: labels are learned in steps. Use labels = "teacher", or '
            "give at least 1 step."
        )
    if any(part.reads_labels for part in objective.modules() if isinstance(part, Objective)):
        return
    if not any(shown.requires_grad for see in sees for shown in see(*_trial(recipe, spec), differentiable=True)):
        kinds = ", ".join(f'"{term.see.kind}"' for term in recipe.objective.terms)
        if not part_class("source.pool", recipe.source.pool).has_classifier:
            raise RecipeError(
                f'labels = "{recipe.labels.kind}" and source.pool = "{recipe.source.pool.kind}": its networks have no '
                "class scores to compare labels with. Use another pool, or other labels."
            )
        raise RecipeError(
            f'labels = "{recipe.labels.kind}" and objective.see = {kinds}: nothing in the objective looks at labels, '
            'which would stay as they start. Use see = "gradients", or add penalties = ["cross-entropy"] (a penalty of '
            "your own says reads_labels = True)."
        )


def check_source(recipe: Recipe) -> None:
    """Refuse keys of the real side that nothing would look at.

    Raises:
        RecipeError: with the key, and what reads it.
    """
    source, default = recipe.source, SourceSpec()
    pool = part_class("source.pool", source.pool)
    trains, given = getattr(pool, "needs_trainer", False), issubclass(pool, PretrainedPool)
    if source.kind == "sketch" and source.pool.kind not in ("fresh", "fixed") and not given:
        raise RecipeError(
            f'source.kind = "sketch" and source.pool = "{source.pool.kind}": a sketch is taken once, under networks '
            'that stay as they are. Use source.kind = "minibatches", or leave the pool out.'
        )
    for name, reader, read in (
        ("landmarks", 'source.kind = "sketch"', source.kind == "sketch"),
        ("sampler", 'source.kind = "minibatches"', source.kind == "minibatches"),
        ("train_augment", "a pool that trains its networks", trains),
        ("cut_mix", "a pool that trains its networks", trains),
        ("arch", "a pool that makes its networks", not given),
        ("width", "a pool that makes its networks", not given),
    ):
        if not read and getattr(source, name) != getattr(default, name):
            raise RecipeError(f"source.{name} is read by {reader} alone: leave it out, or set that.")
    accuracy = any(penalty.options.get("by_accuracy") for penalty in recipe.objective.penalties)
    if accuracy and source.pool.kind != "queue" and ":" not in source.pool.kind:
        raise RecipeError(
            f'objective.penalties, by_accuracy = true: networks of source.pool = "{source.pool.kind}" do not know '
            'their accuracy. Use source.pool = "queue", or leave by_accuracy out.'
        )


def check_start(recipe: Recipe, objective: Objective) -> None:
    """Refuse an objective that looks at real images, or at those which rows start from, where there are none.

    Raises:
        RecipeError: with the sources or the starts that would do.
    """
    if objective.needs_images and recipe.source.kind == "sketch":
        names = ", ".join(f'"{each.kind}"' for each in recipe.objective.penalties)
        raise RecipeError(
            f'source.kind = "sketch" and objective.penalties = {names}: real images are looked at one by one, and a '
            'sketch holds none. Use source.kind = "minibatches".'
        )
    if objective.needs_start and not hasattr(make_part("init", recipe.init), "images"):
        raise RecipeError(
            "objective.penalties: rows are to stay near the real images they start from, and init = "
            f'"{recipe.init.kind}" starts from none: use "inversion", "real", "medoids" or "latent-medoids".'
        )


def check_formation(formation: Formation, spec: DataSpec) -> None:
    """Refuse a formation that cannot take images of these data.

    Raises:
        RecipeError: in the formation's own words.
    """
    try:
        formation(torch.zeros(1, *spec.image_shape))
    except ValueError as error:
        raise RecipeError(f"formation: {error}") from error


def learns_labels(recipe: Recipe) -> bool:
    """Whether the labels of a recipe are learned with the set."""
    return issubclass(part_class("labels", recipe.labels), LearnedLabels)


def learned(recipe: Recipe, decoder: Decoder, formation: Formation | None, objective: Objective) -> list[str]:
    """What has a learning rate: the latent keys, and what learns beside them."""
    parts = {"formation": formation, "decoder": decoder if learns(decoder) else None, "objective": objective}
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    free = [name for name, part in modules.items() if any(each.requires_grad for each in part.parameters())]
    return [*decoder.latent_shapes, *free, *(["labels"] if learns_labels(recipe) else [])]
