"""What a recipe is with a sketch that is there already, and whether the two belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentdc.errors import InputError
from latentdc.recipe.parts import part_class
from latentdc.recipe.spec import Part, Recipe, SourceSpec
from latentdc.sketch import Sketch
from latentdc.types import DataSpec

_PRETRAINED = "pretrained"


def as_sketched(recipe: Recipe, taken: Sketch, asked: Iterable[str] = ()) -> Recipe:
    """The recipe with the real side of a sketch that was given: what is recorded is what happens.

    Args:
        recipe: the recipe.
        taken: the sketch.
        asked: keys that were asked for by name; what the recipe's file alone says of a source gives way silently.

    Raises:
        InputError: a source was asked for that is not the sketch's, or sums where it holds landmarks.
    """
    manifest = taken.manifest
    summed = all(part_class("objective.by", term.by).sketchable for term in recipe.objective.terms)
    if manifest.landmarks is not None and summed and not manifest.plus:
        raise InputError(
            f"the sketch holds points, landmarks for {manifest.by['part']}, and objective.by = "
            f'"{recipe.objective.by.kind}" takes sums: compare by what it was taken for (--set objective.by=NAME).'
        )
    source = replace(
        recipe.source,
        kind="sketch",
        num_pairs=manifest.num_pairs,
        images_per_pair=manifest.images_per_pair,
        landmarks=None if summed else manifest.landmarks,  # of several terms some may be sums
        **_networks(recipe.source, manifest.pool),
    )
    names = sorted({name.split(".")[1] for name in asked if name.startswith("source.")})
    pairs = {name: (getattr(recipe.source, name), getattr(source, name)) for name in names}
    wrong = [
        f"source.{name} = {_told(mine)}, the sketch's is {_told(its)}"
        for name, (mine, its) in pairs.items()
        if mine != its
    ]
    if wrong:
        raise InputError(f"{'; '.join(wrong)}. Leave it out, or take another sketch with `latentdc sketch`.")
    return replace(recipe, source=source)


def _told(value: Any) -> Any:
    return value.kind if isinstance(value, Part) else value


def _networks(source: SourceSpec, made_with: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a source that name the networks of a sketch.

    Of pretrained ones the weights say which they are, not where they lie: a place that the recipe names stays.
    """
    default, named = SourceSpec(), source.pool.kind == _PRETRAINED
    if "model" in made_with:
        options = {name: made_with[name] for name in ("model", "weights", "depths") if made_with[name] is not None}
        pool = source.pool if named else Part(_PRETRAINED, options)
        return {"arch": default.arch, "width": default.width, "pool": pool}
    pool = default.pool if named else source.pool
    return {"arch": made_with["arch"], "width": made_with["width"], "pool": pool}


def near(one: DataSpec, other: DataSpec) -> bool:
    """Whether the statistics could be those of two parts of one data set: means within half a std, stds within 2."""
    spreads = list(zip(one.std, other.std, strict=False))
    means = zip(one.mean, other.mean, spreads, strict=False)
    return (
        len(one.std) == len(other.std)
        and all(abs(a - b) <= max(s) / 2 for a, b, s in means)
        and all(max(s) <= 2 * min(s) for s in spreads)
    )


def as_asked(taken: Sketch, recipe: Recipe, path: str | Path) -> Sketch:
    """A sketch left by an earlier run, if the recipe would take the same one again."""
    wanted, made = recipe.source, taken.manifest
    asked = {
        "source.num_pairs": (wanted.num_pairs, made.num_pairs),
        "source.images_per_pair": (wanted.images_per_pair, made.images_per_pair),
        "source.landmarks": (wanted.landmarks, made.landmarks),
        **{f"source.{name}": (getattr(wanted, name), value) for name, value in _networks(wanted, made.pool).items()},
        "seed": (recipe.seed, made.seed),
    }
    wrong = [f"{name} is {_told(mine)!r}, was {_told(its)!r}" for name, (mine, its) in asked.items() if mine != its]
    if wrong:
        raise InputError(
            f"{path} holds a sketch that was taken otherwise: {'; '.join(wrong)}. Give it as the sketch to use it "
            "nevertheless, or take the new one into another folder."
        )
    return taken
