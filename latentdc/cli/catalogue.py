"""``latentdc recipes`` and ``latentdc cite``: what is shipped, and whom to credit."""

from __future__ import annotations

from typing import Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say


def recipes(*, json: options.Json = False) -> None:
    """List the shipped recipes: each a published method as a composition of parts.

    \b
    Examples:
      latentdc recipes
      latentdc recipes --json
    """
    from latentdc.recipe import decoder_text, load_recipe
    from latentdc.resources import shipped

    found = [load_recipe(path) for path in shipped("pipelines").values()]
    if json:
        emit([recipe.flat() for recipe in found])
        return
    rows = [("recipe", "decoder", "start", "real side", "objective", "title")]
    for recipe in found:
        objective = recipe.objective
        terms = [f"{term.see.kind} by {term.by.kind}" for term in objective.terms]
        terms += [part.kind for part in objective.penalties]
        # without a step the start is the result, and nothing is matched
        matched = (recipe.source.kind, " + ".join(terms)) if recipe.steps else ("-", "-")
        rows.append((recipe.name, decoder_text(recipe.decoder), recipe.init.kind, *matched, recipe.title))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    say(*("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows))


def cite(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe, or a TOML file.")],
    *,
    data: Annotated[str | None, typer.Option("--data", help="Credit this data set too, by name.")] = None,
) -> None:
    """Print BibTeX for exactly the parts a recipe uses.

    \b
    Example:
      latentdc cite dm-gan --data fashion-mnist > references.bib
    """
    from latentdc.recipe import cite as bibtex
    from latentdc.recipe import load_recipe

    say(bibtex(load_recipe(recipe), data=data).rstrip())
