"""What stands where a run would write: a finished bundle is replaced by its own run only."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from latentdc.bundle import layout
from latentdc.decoders.components import read_json
from latentdc.errors import InputError
from latentdc.recipe import Recipe, to_toml
from latentdc.recipe.spec import flatten
from latentdc.types import DataSpec

_FREE = ("title", "cite", "compile", "chunk")
"""Keys of a recipe that change nothing of what it makes."""


def must_be_of_this_run(out: Path, recipe: Recipe, spec: DataSpec) -> None:
    """Refuse to write over a finished bundle of another recipe or other data of which no checkpoint is left.

    With a checkpoint its run can be gone on with, and be stored otherwise; and that of another run is refused itself.

    Raises:
        InputError: it would be lost; the message says in what it differs.
    """
    if not layout.is_bundle(out):
        return
    held = read_json(out / layout.PROVENANCE).get("provenance", {})
    before, now = _told(str(held.get("recipe_toml", ""))), _told(to_toml(recipe))
    wrong = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if not before:
        wrong = ["what it was made by, which it does not say"]
    elif held.get("data_fingerprint") != spec.fingerprint:
        wrong.append("data")
    if wrong:
        raise InputError(
            f"{out}: holds the finished bundle of another run (other: {', '.join(wrong)}), which would be lost. Give "
            "another folder (--out), or --resume never to replace it."
        )


def _told(text: str) -> dict[str, Any]:
    return {name: value for name, value in flatten(tomllib.loads(text)).items() if name not in _FREE}
