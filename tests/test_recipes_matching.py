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


def as_written(name: str) -> dict[str, Any]:
    """What a shipped recipe sets, under full names, but for what names and explains it."""
    table = tomllib.loads(find("pipelines", name).read_text(encoding="utf-8"))
    return {key: value for key, value in _opened(table) if key not in ("title", "cite")}


def _differences(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """Full names of the keys in which two recipes differ, with what either says; None where it says nothing."""
    first, second = as_written(one), as_written(other)
    for mine, theirs in ((first, second), (second, first)):
        for key in [key for key in mine if f"{key}.kind" in theirs]:
            mine[f"{key}.kind"] = mine.pop(key)  # a part without options stands as its name
    pairs = {key: (first.get(key), second.get(key)) for key in first.keys() | second.keys()}
    return {key: (mine, theirs) for key, (mine, theirs) in pairs.items() if mine != theirs}


SGD_TO_ADAM = {"optim.kind": ("sgd", "adam"), "optim.momentum": (0.5, None)}
ONE_PENALTY = "objective.penalties.0"

CHANGES: dict[tuple[str, str], dict[str, tuple[Any, Any]]] = {
    ("dc", "dsa"): {"init": ("prior", "real"), "augment": ("none", "dsa"), "source.train_augment": (None, "dsa")},
    # Ten image steps of a network and five passes between two of them are those of one image a class.
    ("dc", "dcc"): {
        "init": ("prior", "real"),
        "objective.see.scope": (None, "all"),
        "source.pool.restart": (1, 10),
        "source.pool.epochs": (1, 5),
    },
    ("dsa", "lcmat"): {
        "images_per_class": (1, 2),  # the variance of a single image is zero
        "objective.plus.0.see": (None, "head-variance"),
        "objective.plus.0.by": (None, "norm"),
        "objective.plus.0.weights": (None, [0.01 / 2]),  # ρ / 2
    },
    ("dc", "cafe"): {
        "objective.see.kind": ("gradients", "features"),
        "objective.see.layer": (None, "maps"),
        "objective.by": ("cosine", "mean"),
        "objective.weights": (None, [0.1, 0.1, 1.0, 1.0 + 1.0]),  # the last map is matched twice
        f"{ONE_PENALTY}.kind": (None, "centre-classify"),
        f"{ONE_PENALTY}.weight": (None, 0.01 * 256),  # of a mean over 256 images in place of their sum
        "source.pool.restart": (1, 50),
        "steps": (1000, 2000),
        "optim.schedule": (None, "cosine"),
    },
    ("idc", "dream"): {
        "init": ("real", "medoids"),
        "source.num_per_class": (64, 128),
        "source.sampler.kind": (None, "kmeans"),
        "source.sampler.every": (None, 10),
        "source.sampler.weighted": (None, False),
    },
    # What the authors of IDC give for colour images of 32 pixels.
    ("idc", "channel-formation"): {
        "formation.kind": ("tiles", "channels"),
        "formation.factor": (2, None),
        "objective.by.kind": ("norm", "mean"),
        "objective.by.p": (1, None),
        "source.pool.num_images": (500, 2000),
        "optim.lr": (0.00008, 0.0125),
    },
    ("dance", "ncfm"): {
        "objective.by.kind": ("mean", "cf"),
        "objective.by.weight": (None, 300.0),
        **SGD_TO_ADAM,
        "optim.lr": (0.08, 0.003),
        "optim.schedule": (None, "cosine"),
    },
    ("dance", "idm"): {
        "augment.strategy": ("color_crop_cutout", None),
        "augment.mode": ("I", None),
        f"{ONE_PENALTY}.weight": (1.0, 0.5 * 100),  # of an accuracy in per cent
        f"{ONE_PENALTY}.by_accuracy": (None, True),
        "source.num_per_class": (128, 256),
        "source.cut_mix": (0.5, None),
        "source.train_augment.kind": ("dsa", None),
        "source.train_augment.strategy": ("color_crop", None),
        "source.train_augment.mode": ("I", None),
        "source.pool.kind": ("blended", "queue"),
        "source.pool.num": (5, 20),
        "source.pool.epochs": (5, None),
        "source.pool.num_images": (10000, None),
        "source.pool.interval": (None, 5),
        "source.pool.visit_steps": (None, 10),
        "optim.lr": (0.08, 0.2),
    },
    ("dm", "wasserstein"): {
        "objective.by.kind": ("mean", "sinkhorn"),
        "objective.by.blur": (None, 0.1),
        "source.num_per_class": (256, 128),
    },
    ("dm", "mdc"): {"images_per_class": (1, 10), "objective.kind": (None, "prefixes")},
    ("dm", "datadam"): {
        "init": ("real", "medoids"),
        "objective.see": ("features", "attention"),
        "objective.weights": (None, [100.0]),
        "objective.plus.0.see": (None, "features"),
        "objective.plus.0.by": (None, "mean"),
        "objective.plus.0.weights": (None, [100 * 0.01]),
        "source.num_per_class": (256, 64),
    },
    ("dm", "m3d"): {
        "formation.kind": (None, "tiles"),
        "formation.factor": (None, 2),
        "objective.by": ("mean", "mmd"),
        **SGD_TO_ADAM,
        "optim.lr": (1.0, 0.02),
        "optim.schedule": ("cosine", None),
    },
    ("dm", "wmdd"): {
        "augment.strategy": (None, "crop_flip"),
        "objective.by": ("mean", "atoms"),
        "objective.plus.0.see": (None, "statistics"),
        "objective.plus.0.by": (None, "mean"),
        "objective.plus.0.weights": (None, [1.0]),
        f"{ONE_PENALTY}.kind": (None, "cross-entropy"),
        f"{ONE_PENALTY}.weight": (None, 1.0),
        "source.pool.kind": (None, "blended"),
        "source.pool.num": (None, 1),
        "source.pool.epochs": (None, 5),
        "source.pool.num_images": (None, 10000),
        "source.pool.trained_only": (None, True),
        "source.train_augment": (None, "dsa"),
        **SGD_TO_ADAM,
        "optim.lr": (1.0, 0.1),
    },
    ("dm", "dm-gan"): {
        "decoder": ("pixels", "default"),
        "init": ("real", "prior"),
        "steps": (2000, 900),
        "source.kind": ("minibatches", "sketch"),
        "source.num_per_class": (256, None),
        "source.num_pairs": (None, 60),
        **SGD_TO_ADAM,
        "optim.lr": (1.0, 0.1),
    },
    ("dm", "it-gan"): {
        "decoder": ("pixels", "gan"),
        "init.kind": ("real", "inversion"),
        "init.steps": (None, 300),
        "init.lr": (None, 0.1),
        "images_per_class": (1, 10),
        "steps": (2000, 1000),
        f"{ONE_PENALTY}.kind": (None, "pairwise"),
        f"{ONE_PENALTY}.weight": (None, 0.1),
        **SGD_TO_ADAM,
        "optim.lr": (1.0, 0.001),
        "optim.schedule": ("cosine", None),
    },
    ("dm", "glad-dm"): {
        "decoder.kind": ("pixels", "gan"),
        "decoder.space": (None, "f1"),
        "init": ("real", "prior"),
        "steps": (2000, 1000),
        **SGD_TO_ADAM,
        "optim.lr": (1.0, None),
        "optim.lr.f": (None, 0.1),
        "optim.lr.w": (None, 0.03),
    },
    ("glad-dm", "glad-dc"): {
        "objective.see": ("features", "gradients"),
        "objective.by": ("mean", "cosine"),
        "optim.kind": ("adam", "sgd"),
        "optim.momentum": (None, 0.5),
        "optim.lr.f": (0.1, 1.0),
        "optim.lr.w": (0.03, 0.001),
        "optim.schedule": ("cosine", None),
    },
    ("glad-dm", "ld3m-dm"): {
        "decoder.kind": ("gan", "diffusion"),
        "decoder.space": ("f1", None),
        "decoder.skip": (None, "state"),
        "decoder.learn_condition": (None, True),
        "decoder.guidance": (None, 1.0),
        "init.kind": ("prior", "inversion"),
        "init.steps": (None, 100),
        "optim.lr.f": (0.1, None),
        "optim.lr.w": (0.03, None),
        "optim.lr.z": (None, 0.1),
        "optim.lr.c": (None, 0.01),
    },
}
"""What a recipe changes of another, value by value: of each key what the first says and what the second does."""


@pytest.mark.parametrize(("one", "other"), CHANGES)
def test_a_paper_changes_what_it_says_it_changes(one: str, other: str) -> None:
    assert _differences(one, other) == CHANGES[one, other]


def test_the_table_says_how_near_each_recipe_is() -> None:
    table = find("pipelines", FAMILY[0]).with_name("README.md").read_text(encoding="utf-8")
    status = dict(re.findall(r"^\| \[`([\w-]+)`\]\(\1\.toml\) \|.*\| ([^|]+) \|$", table, flags=re.MULTILINE))
    assert status.keys() == shipped("pipelines").keys()
    wrong = {
        name: said for name, said in status.items() if not re.match(r"near: \w|(exact|re-derived|own)(?=[:;]|$)", said)
    }
    assert not wrong, "begin with exact, near, re-derived or own, and say of near what differs"
