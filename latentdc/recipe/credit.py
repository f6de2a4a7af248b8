"""Whom to credit: the BibTeX of exactly the parts a recipe uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from latentdc.data.cut_mix import CutMix
from latentdc.decoders import DECODERS
from latentdc.decoders.reference import DEFAULT, KINDS, decoder_class
from latentdc.errors import DataError, RecipeError, unknown
from latentdc.networks import PretrainedPool
from latentdc.networks.base import resolve
from latentdc.recipe.parts import is_stored, part_class
from latentdc.recipe.spec import Part, Recipe
from latentdc.resources import shipped

_FILE = Path(__file__).resolve().parent.parent / "references.bib"
_DATA = {
    "fashion-mnist": "xiao2017fashion",
    "fashion-mnist-mini": "xiao2017fashion",
    "cifar10": "krizhevsky2009cifar",
}


@cache
def references() -> dict[str, str]:
    """Every entry of ``references.bib`` by its key."""
    text = _FILE.read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{([^,\s]+),\n.*?^\}$", text, flags=re.MULTILINE | re.DOTALL)
    bodies = re.findall(r"^@\w+\{[^,\s]+,\n.*?^\}$", text, flags=re.MULTILINE | re.DOTALL)
    return dict(zip(entries, bodies, strict=True))


def citations(recipe: Recipe, *, data: str | None = None) -> tuple[str, ...]:
    """Keys of the works a recipe stands on, each once: its own, then those of its parts, then the data set's.

    Raises:
        InputError: there is no such network.
        BundleError: the decoder's ``config.json`` is damaged.
    """
    keys = [*recipe.cite, *getattr(_decoder_class(recipe.decoder), "cite", ())]
    sampled = recipe.source.kind == "minibatches"
    stored = (("formation", recipe.formation), ("init", recipe.init), ("labels", recipe.labels))
    matched = (
        ("objective.kind", Part(recipe.objective.kind)),
        *(look for term in recipe.objective.terms for look in (("objective.see", term.see), ("objective.by", term.by))),
        *(("objective.penalties", penalty) for penalty in recipe.objective.penalties),
        ("augment", recipe.augment),
        *((("source.sampler", recipe.source.sampler), ("source.pool", recipe.source.pool)) if sampled else ()),
        *([("source.train_augment", recipe.source.train_augment)] if sampled else ()),
    )
    for where, part in (*matched, *stored) if recipe.steps else stored:
        if part is not None:
            keys += _cited(part_class(where, part), part.options)
    if recipe.steps:
        # Of a network that others trained nothing tells whom to credit.
        given = issubclass(part_class("source.pool", recipe.source.pool), PretrainedPool)
        keys += () if given else resolve(recipe.source.arch).cite
        keys += CutMix.cite if sampled and recipe.source.cut_mix else ()
        keys += ["kingma2015adam"] if recipe.optim.kind == "adam" else []
    if data in _DATA:
        keys.append(_DATA[data])
    return tuple(dict.fromkeys(keys))


def cite(recipe: Recipe, *, data: str | None = None) -> str:
    """BibTeX of exactly the parts in use.

    Args:
        recipe: the recipe.
        data: name of the data set, to credit it too; a folder or file of one's own credits nobody.

    Raises:
        DataError: there is no such data set.
        RecipeError: a key that ``references.bib`` does not have; a part of one's own may cite whole entries, "@…".
    """
    if data is not None and data not in _DATA and not (data and Path(data).expanduser().exists()):
        raise DataError(f"data set {unknown('name', data, _DATA)} It is not a folder or file either (--data).")
    known = references()
    keys = citations(recipe, data=data)
    for key in keys:
        if key not in known and not key.startswith("@"):
            raise RecipeError(f"cite: {unknown('entry of references.bib', key, known)}")
    return "\n\n".join(known.get(key, key.strip()) for key in keys) + "\n"


def _cited(cls: type[Any], options: Mapping[str, Any]) -> tuple[str, ...]:
    """A part's ``cite``; or, of one whose options stand on works of their own, what its ``cite_for`` says of them."""
    return cls.cite_for(options) if hasattr(cls, "cite_for") else getattr(cls, "cite", ())


def _decoder_class(decoder: str | Part) -> type[Any] | None:
    """The class behind a recipe's ``decoder``; None where only loading it could tell."""
    part = decoder if isinstance(decoder, Part) else Part(decoder)
    if is_stored(part.kind):
        return part_class("decoder", part)
    if part.kind in DECODERS:
        return DECODERS[part.kind]
    if part.kind == DEFAULT:
        return DECODERS[KINDS[0]]
    return decoder_class(shipped("checkpoints").get(part.kind, Path(part.kind)))
