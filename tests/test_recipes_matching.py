"""The matching family's recipes run from start to bundle, in pixels and through a generator, and say what papers do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tiny_parts import tiny_decoder

from latentdc.data.store import ClassStore
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import load_recipe
from latentdc.resources import find

FAMILY = (
    *("dc", "dsa", "dcc", "lcmat", "idc", "channel-formation", "dream", "cafe", "dm", "dance", "m3d"),
    *("wasserstein", "wmdd", "idm", "datadam", "ncfm", "mdc"),
)
SMALL = {"steps": 3, "images_per_class": 2, "source.width": 4, "source.num_per_class": 5}
FEW: dict[str, dict[str, Any]] = {
    "trained": {"restart": 2, "epochs": 1},
    "queue": {"num": 3, "interval": 2, "visit_steps": 1},
    "blended": {"num": 1, "epochs": 1, "num_images": 8},
    "easiest": {"candidates": 8},
    "kmeans": {"every": 2},
}
"""What makes networks and samplers small."""


def small(name: str) -> dict[str, Any]:
    recipe, changes = load_recipe(name), dict(SMALL)
    for where, part in (("source.pool", recipe.source.pool), ("source.sampler", recipe.source.sampler)):
        changes |= {f"{where}.{key}": value for key, value in FEW.get(part.kind, {}).items()}
    return changes


@pytest.mark.parametrize("generative", [False, True], ids=["pixels", "gan"])
@pytest.mark.parametrize("name", FAMILY)
def test_recipe_runs_from_start_to_bundle(name: str, generative: bool, tiny_store: ClassStore, tmp_path: Path) -> None:
    pipe = CondensationPipeline(tiny_decoder("gan"), device="cpu") if generative else CondensationPipeline(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    changes = small(name)
    if generative:
        changes |= {"decoder": "pixels", "init": "prior", "optim.kind": "adam", "optim.lr": 0.1}
    made = pipe(tiny_store, name, out=tmp_path / "run", overrides=changes)
    assert made.bundle.bank.num_rows == 6
    assert all(bool(value.isfinite().all()) for value in made.bundle.bank.latents().values())
    log = (tmp_path / "run.run" / "log.jsonl").read_text().splitlines()
    assert len(log) == 3


def _differences(one: str, other: str) -> set[str]:
    """Top-level and second-level keys in which two recipes differ, but for what names and explains them."""
    tables = [tomllib.loads(find("pipelines", name).read_text(encoding="utf-8")) for name in (one, other)]
    flat = []
    for table in tables:
        keys: dict[str, Any] = {}
        for name, value in table.items():
            inside = (isinstance(value, dict) and "kind" not in value) or name in ("objective", "source", "optim")
            keys |= {f"{name}.{key}": each for key, each in value.items()} if inside else {name: value}
        flat.append(keys)
    told = {"title", "cite"}
    return {key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key)} - told


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("dc", "dsa", {"init", "augment", "source.train_augment"}),
        ("dsa", "lcmat", {"images_per_class", "objective.plus"}),
        ("idc", "dream", {"init", "source.num_per_class", "source.sampler"}),
        ("idc", "channel-formation", {"formation", "objective.by", "optim.lr", "source.pool"}),
        ("dance", "ncfm", {"objective.by", "optim.kind", "optim.lr", "optim.momentum", "optim.schedule"}),
        ("dm", "wasserstein", {"objective.by", "source.num_per_class"}),
        ("dm", "mdc", {"images_per_class", "objective.kind"}),
    ],
)
def test_a_paper_changes_what_it_says_it_changes(one: str, other: str, expected: set[str]) -> None:
    assert _differences(one, other) == expected
