"""What a recipe is with a sketch that is there already, and whether the two belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from latentdc.errors import InputError
from latentdc.recipe.spec import Recipe
from latentdc.sketch import Sketch
from latentdc.types import DataSpec


def as_sketched(recipe: Recipe, taken: Sketch, asked: Iterable[str] = ()) -> Recipe:
    """The recipe with the real side of a sketch that was given: what is recorded is what happens.

    Args:
        recipe: the recipe.
        taken: the sketch.
        asked: keys that were asked for by name; what the recipe's file alone says of a source gives way silently.

    Raises:
        InputError: a source was asked for that is not the sketch's.
    """
    manifest = taken.manifest
    source = replace(
        recipe.source,
        kind="sketch",
        num_pairs=manifest.num_pairs,
        images_per_pair=manifest.images_per_pair,
        arch=manifest.pool["arch"],
        width=manifest.pool["width"],
    )
    names = [name.removeprefix("source.") for name in sorted(asked) if name.startswith("source.")]
    pairs = {name: (getattr(recipe.source, name), getattr(source, name)) for name in names}
    wrong = [f"source.{name} = {mine}, the sketch's is {its}" for name, (mine, its) in pairs.items() if mine != its]
    if wrong:
        raise InputError(f"{'; '.join(wrong)}. Leave it out, or take another sketch with `latentdc sketch`.")
    return replace(recipe, source=source)


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
