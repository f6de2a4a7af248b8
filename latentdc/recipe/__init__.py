"""Recipes: a method as a composition of parts. TOML ⇄ frozen dataclasses, the parts made of them, cost and credit."""

from latentdc.recipe.build import Built, build, identity, make_bank, start_batch, start_identity, with_start
from latentdc.recipe.credit import citations, cite, references
from latentdc.recipe.decoder import decoder_text, forgone
from latentdc.recipe.estimate import dry_run, size_of_sketch
from latentdc.recipe.flops import Flops, count_flops
from latentdc.recipe.real import make_source, plain_source
from latentdc.recipe.sketched import as_sketched
from latentdc.recipe.spec import ObjectiveSpec, Part, Recipe, SourceSpec
from latentdc.recipe.toml import load_recipe, parse_recipe, parse_setting, to_toml

__all__ = [
    "Built",
    "Flops",
    "ObjectiveSpec",
    "Part",
    "Recipe",
    "SourceSpec",
    "as_sketched",
    "build",
    "citations",
    "cite",
    "count_flops",
    "decoder_text",
    "dry_run",
    "forgone",
    "identity",
    "load_recipe",
    "make_bank",
    "make_source",
    "parse_recipe",
    "parse_setting",
    "plain_source",
    "references",
    "size_of_sketch",
    "start_batch",
    "start_identity",
    "to_toml",
    "with_start",
]
