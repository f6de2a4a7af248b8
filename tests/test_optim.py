"""Learning rates: one for all, or one for each latent key; schedules scale them alike, runs resume bit for bit."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_parts import SPEC, tiny_decoder
from torch import Tensor

from latentdc.checkpoint import Checkpoints
from latentdc.condense import Optim, Step, condense
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, RecipeError
from latentdc.optim import written
from latentdc.portable.bank import LatentBank
from latentdc.recipe import build, make_bank, make_source, parse_recipe, to_toml

TINY = {
    "images_per_class": 1,
    "augment": "none",
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6, "num_pairs": 2},
}
TWO = {"f": 0.05, "w": 0.002}


def run(
    store: ClassStore, optim: dict[str, Any], steps: int, folder: Path | None = None, *, stop: int | None = None
) -> tuple[LatentBank, dict[str, Tensor], list[Step]]:
    """A run in a space with two latent keys: the bank, what it began as, what the callbacks saw."""
    decoder = tiny_decoder("gan:mapped-f1")
    built = build(parse_recipe(TINY | {"optim": optim}), store.spec, decoder=decoder)
    bank, steps_seen = make_bank(built, store), []
    before = {name: value.detach().clone() for name, value in bank.z.items()}

    def keep(now: Step) -> None:
        steps_seen.append(now._replace(bank=None))  # type: ignore[arg-type]
        if now.step == stop:
            raise KeyboardInterrupt

    kept = None if folder is None else Checkpoints(folder, {})
    condense(
        decoder, bank, built.objective, make_source(built, store, progress=False), steps=steps,
        optim=built.recipe.optim, seed=0, checkpoints=kept, on_step=(keep,), progress=False,
    )  # fmt: skip
    return bank, before, steps_seen


def test_each_key_moves_at_its_own_rate(tiny_store: ClassStore) -> None:
    """Adam's first step is as long as its rate, whatever the gradient."""
    bank, before, seen = run(tiny_store, {"lr": TWO}, 1)
    for name, rate in TWO.items():
        moves = (bank.z[name].detach() - before[name]).abs()
        assert float(moves.max()) == pytest.approx(rate, rel=1e-2)
    assert seen[0].lr == TWO


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_equal_rates_are_one_rate(kind: str, tiny_store: ClassStore) -> None:
    one, _, seen = run(tiny_store, {"kind": kind, "lr": 0.01}, 3)
    two, _, _ = run(tiny_store, {"kind": kind, "lr": {"w": 0.01, "f": 0.01}}, 3)
    assert all(torch.equal(one.z[name], two.z[name]) for name in TWO)
    assert [now.lr for now in seen] == [0.01] * 3


def test_a_schedule_scales_all_rates_alike(tiny_store: ClassStore, tmp_path: Path) -> None:
    _, _, seen = run(tiny_store, {"lr": TWO, "schedule": "cosine"}, 4, tmp_path)
    for step, now in enumerate(seen):
        share = Optim(schedule="cosine").share_at(step, 4)
        assert now.lr == {name: pytest.approx(rate * share) for name, rate in TWO.items()}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == [now.lr for now in seen]


@pytest.mark.parametrize("optim", [{"kind": "sgd"}, {"kind": "adam", "schedule": "cosine"}], ids=["sgd", "cosine"])
def test_resume_is_bit_equal(optim: dict[str, Any], tiny_store: ClassStore, tmp_path: Path) -> None:
    table = optim | {"lr": TWO}
    straight, _, _ = run(tiny_store, table, 6)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store, table, 6, tmp_path, stop=3)
    resumed, _, seen = run(tiny_store, table, 6, tmp_path)
    assert [now.step for now in seen] == [4, 5, 6]
    assert all(torch.equal(straight.z[name], resumed.z[name]) for name in TWO)
    with pytest.raises(InputError, match=r"optim\.lr is .*0\.3"):
        run(tiny_store, table | {"lr": {"f": 0.3, "w": 0.01}}, 8, tmp_path)


def test_rates_as_messages_show_them() -> None:
    assert written(0.5) == "0.5"
    assert written({"f": 10.0, "w": 0.01}) == "f 10, w 0.01"


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        ({"f": 0.1}, r"optim\.lr has no rate for w\. .*a rate for: f, w\."),
        ({"f": 0.1, "z": 0.1}, r"optim\.lr\.z: nothing of that name is learned here\. Give a rate for: f, w\."),
        ({"f": 0.1, "w": 0.1, "decoder": 1.0}, r"optim\.lr\.decoder: nothing of that name"),
    ],
)
def test_a_table_that_does_not_fit_the_decoder_is_refused(lr: dict[str, float], message: str) -> None:
    recipe = parse_recipe(TINY | {"optim": {"lr": lr}})
    with pytest.raises(InputError, match=message):
        build(recipe, SPEC, decoder=tiny_decoder("gan:mapped-f1"))
    with pytest.raises(InputError, match=message):
        recipe.optim.build({"bank.z.f": torch.zeros(2), "bank.z.w": torch.zeros(2)})


def test_what_learns_beside_the_latents_needs_a_rate_in_a_table() -> None:
    def parts(lr: object) -> None:
        table = TINY | {"decoder": {"kind": "memory", "num_bases": 4}, "formation": "hallucinators"}
        build(parse_recipe(table | {"optim": {"lr": lr}}), SPEC)

    parts(0.1)
    with pytest.raises(InputError, match=r"no rate for formation\. .*a rate for: \w+, formation, decoder\."):
        parts({"a": 0.1})
    key = next(iter(build(parse_recipe(TINY | {"decoder": "memory"}), SPEC).decoder.latent_shapes))
    parts({key: 0.1, "formation": 0.01, "decoder": 0.02})
    learnables = {f"bank.z.{key}": torch.zeros(2), "formation.a.b": torch.zeros(1), "formation.c": torch.zeros(1)}
    groups = Optim(lr={key: 0.1, "formation": 0.01}).build(learnables).param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.1, 1), (0.01, 2)]
    (group,) = Optim(lr=0.3).build(learnables).param_groups
    assert (group["lr"], len(group["params"])) == (0.3, 3)


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        ({"f": -1.0}, r"optim\.lr\.f = -1\.0: give a positive, finite number"),
        ({"f": "fast"}, r"optim\.lr\.f = 'fast': a number is needed here"),
        ({"f": True}, r"optim\.lr\.f = True: a number is needed here"),
        ({}, r"optim\.lr is an empty table"),
        ([0.1], r"optim\.lr = \[0\.1\]: a number is needed here, or a table"),
        ("fast", r"optim\.lr = 'fast': a number is needed here"),
    ],
)
def test_a_rate_that_is_none_is_refused(lr: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(TINY | {"optim": {"lr": lr}})


def test_rates_in_recipes() -> None:
    recipe = parse_recipe(TINY | {"optim": {"lr": {"f": 10, "w": 0.01}}}, settings=["optim.lr.w=0.5"])
    assert recipe.optim.lr == {"f": 10.0, "w": 0.5}
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe
    assert recipe.flat()["optim.lr.f"] == 10.0
    assert parse_recipe(TINY | {"optim": {"lr": {"f": 1}}}, settings=["optim.lr=2"]).optim.lr == 2.0
