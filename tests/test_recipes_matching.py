"""The matching family's recipes run from start to bundle, in pixels and through a generator, and say what papers do."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_parts import tiny_decoder

from latentdc.data.store import ClassStore
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import build, load_recipe, make_bank
from latentdc.resources import find, shipped

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
    decoder = tiny_decoder("gan") if generative else None
    pipe = CondensationPipeline(decoder, device="cpu") if generative else CondensationPipeline(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    changes = small(name)
    if generative:
        changes |= {"decoder": "pixels", "init": "prior", "optim.kind": "adam", "optim.lr": 0.1}
    made = pipe(tiny_store, name, out=tmp_path / "run", overrides=changes)
    assert made.bundle.bank.num_rows == 6
    if generative:
        assert type(made.bundle.decoder) is type(decoder)
    start = make_bank(build(load_recipe(name, overrides=changes), tiny_store.spec, decoder=decoder), tiny_store)
    latents = made.bundle.bank.latents()
    assert latents.keys() == start.z.keys()
    for key, value in latents.items():
        assert bool(value.isfinite().all())
        assert not any(torch.equal(row, began) for row in value for began in start.z[key]), f"{key} was not learned"
    log = (tmp_path / "run.run" / "log.jsonl").read_text().splitlines()
    assert len(log) == 3


def _opened(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a recipe under its full name; inline tables, and lists of them, are opened too."""
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        value = {str(place): each for place, each in enumerate(value)}
    if not isinstance(value, dict):
        yield path, value
        return
    for key, each in value.items():
        yield from _opened(each, f"{path}.{key}" if path else key)


def _differences(one: str, other: str) -> set[str]:
    """Full names of the keys in which two recipes differ, but for what names and explains them."""
    first, second = (
        dict(_opened(tomllib.loads(find("pipelines", name).read_text(encoding="utf-8")))) for name in (one, other)
    )
    for mine, theirs in ((first, second), (second, first)):
        for key in [key for key in mine if f"{key}.kind" in theirs]:
            mine[f"{key}.kind"] = mine.pop(key)  # a part without options stands as its name
    told = {"title", "cite"}
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)} - told


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("dc", "dsa", {"init", "augment", "source.train_augment"}),
        ("dc", "dcc", {"init", "objective.see.scope", "source.pool.restart", "source.pool.epochs"}),
        ("dsa", "lcmat", {"images_per_class"} | {f"objective.plus.0.{key}" for key in ("see", "by", "weights")}),
        (
            *("idc", "dream"),
            {"init", "source.num_per_class"} | {f"source.sampler.{key}" for key in ("kind", "every", "weighted")},
        ),
        (
            *("idc", "channel-formation"),
            {"formation.kind", "formation.factor", "objective.by.kind", "objective.by.p"}
            | {"optim.lr", "source.pool.num_images"},
        ),
        (
            *("dance", "ncfm"),
            {"objective.by.kind", "objective.by.weight"}
            | {f"optim.{key}" for key in ("kind", "lr", "momentum", "schedule")},
        ),
        (
            *("dance", "idm"),
            {"augment.strategy", "augment.mode", "source.num_per_class", "source.cut_mix", "optim.lr"}
            | {f"objective.penalties.0.{key}" for key in ("weight", "by_accuracy")}
            | {f"source.train_augment.{key}" for key in ("kind", "strategy", "mode")}
            | {f"source.pool.{key}" for key in ("kind", "num", "epochs", "num_images", "interval", "visit_steps")},
        ),
        ("dm", "wasserstein", {"objective.by.kind", "objective.by.blur", "source.num_per_class"}),
        ("dm", "mdc", {"images_per_class", "objective.kind"}),
        (
            *("dm", "datadam"),
            {"init", "objective.see", "objective.weights", "source.num_per_class"}
            | {f"objective.plus.0.{key}" for key in ("see", "by", "weights")},
        ),
        (
            *("dm", "m3d"),
            {"formation.kind", "formation.factor", "objective.by"}
            | {f"optim.{key}" for key in ("kind", "lr", "momentum", "schedule")},
        ),
        (
            *("glad-dm", "glad-dc"),
            {"objective.see", "objective.by"}
            | {f"optim.{key}" for key in ("kind", "lr.f", "lr.w", "momentum", "schedule")},
        ),
    ],
)
def test_a_paper_changes_what_it_says_it_changes(one: str, other: str, expected: set[str]) -> None:
    assert _differences(one, other) == expected


def test_the_table_says_how_near_each_recipe_is() -> None:
    table = find("pipelines", FAMILY[0]).with_name("README.md").read_text(encoding="utf-8")
    status = dict(re.findall(r"^\| \[`([\w-]+)`\]\(\1\.toml\) \|.*\| ([^|]+) \|$", table, flags=re.MULTILINE))
    assert status.keys() == shipped("pipelines").keys()
    wrong = {
        name: said for name, said in status.items() if not re.match(r"near: \w|(exact|re-derived|own)(?=[:;]|$)", said)
    }
    assert not wrong, "begin with exact, near, re-derived or own, and say of near what differs"
