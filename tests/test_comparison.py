"""Comparisons: cells, budget, resume, failures, and what the file may say."""

from __future__ import annotations

import json
import re
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tiny_parts import tiny_decoder
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, RecipeError
from latentdc.evaluate.protocols import PROTOCOLS, Protocol
from latentdc.evaluate.records import Report
from latentdc.pipelines.comparison import Comparison, compare, run
from latentdc.pipelines.comparison.plan import Plan
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import Built, count_flops, load_recipe

SMALL = ("source.width=4", "source.num_per_class=5", "init=real")


@pytest.fixture
def data(tiny_store: ClassStore, tiny_test_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol("tiny", epochs=1))
    return Data(tiny_store, tiny_test_store)


def wanted(**changes: Any) -> Comparison:
    footing = {
        "settings": SMALL,
        "images_per_class": 1,
        "steps": 2,
        "protocol": "tiny",
        "seeds": 1,
        "students": ("mlp",),
    }
    return Comparison(**{"recipes": ("dm",), **footing, **changes})


def test_every_cell_is_condensed_judged_and_listed(data: Data, tmp_path: Path) -> None:
    plan = wanted(recipes=("dm", "wasserstein"), variants={"mean": (), "energy": ("objective.by=energy",)})
    assert list(plan.cells) == ["dm-mean", "wasserstein-mean", "dm-energy", "wasserstein-energy"]
    found = compare(data, plan, out=tmp_path / "out", progress=False)
    assert all(isinstance(report, Report) for each in found.values() for report in each)
    page = (tmp_path / "out" / "README.md").read_text()
    for name in plan.cells:
        assert f"**test/{name}**" in page
        assert (tmp_path / "out" / "test" / name / "grid.png").is_file()
        told = json.loads((tmp_path / "out" / "bundles" / name / "provenance.json").read_text())["provenance"]
        recipe = tomllib.loads(told["recipe_toml"])
        assert recipe["steps"] == 2
        by = recipe["objective"]["by"]["kind"]
        assert by == ("energy" if "energy" in name else {"dm": "mean"}.get(told["recipe"], "sinkhorn"))
    assert "random-real" in page
    assert "![accuracy of mlp](plots/test-mlp.png)" in page
    assert (tmp_path / "out" / "plots" / "test-mlp.png").read_bytes()[:4] == b"\x89PNG"


def test_finished_cells_are_skipped_and_recipes_may_be_added(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(data, wanted(), out=tmp_path / "out", progress=False)
    judged: list[str] = []
    measure = run.evaluate
    monkeypatch.setattr(run, "evaluate", lambda *a, **k: (judged.append("one"), measure(*a, **k))[1])
    again = compare(data, wanted(recipes=("dm", "mdc")), out=tmp_path / "out", progress=False)
    assert judged == ["one"]
    assert again["dm"] == first["dm"]
    with pytest.raises(InputError, match=r"another footing: seeds is 2, was 1\. Give another folder"):
        compare(data, wanted(seeds=2), out=tmp_path / "out", progress=False)


def test_a_budget_of_seconds_is_measured_once(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def estimate(*given: Any, **more: Any) -> dict[str, float]:
        asked.append(0.1)
        return {"step_seconds": 0.1}

    monkeypatch.setattr(run.CondensationPipeline, "estimate", estimate)
    plan = wanted(steps=None, seconds=1.2)
    compare(data, plan, out=tmp_path / "out", progress=False)
    told = json.loads((tmp_path / "out" / "cells" / "dm.json").read_text())
    assert told["steps"] == 12
    assert told["seconds"] > 0
    (tmp_path / "out" / "test" / "dm" / "report.json").unlink()
    compare(data, plan, out=tmp_path / "out", progress=False)
    assert len(asked) == 1


def test_a_budget_of_operations_buys_steps_by_what_they_compute(data: Data, tmp_path: Path) -> None:
    for name in ("dm", "dance"):
        counted = count_flops(*_parts(data, name))
        budget = (counted.networks + 12.4 * counted.step) / 1e12
        compare(data, wanted(recipes=(name,), steps=None, teraflops=budget), out=tmp_path / name, progress=False)
        found = json.loads((tmp_path / name / "cells" / f"{name}.json").read_text())
        assert found["steps"] == 12, "the networks were paid for before the steps"
        assert found["flops"] == {"step": counted.step, "networks": counted.networks}
        assert (counted.networks > 0) == (name == "dance")
        page = (tmp_path / name / "README.md").read_text()
        assert f"{budget:g} x 10^12 operations of condensation a cell" in page
        assert re.search(rf"\| {name} \| 12 \| \d+ \| [\d.e-]+ \|", page)


def test_a_budget_of_operations_that_buys_no_steps_is_refused(data: Data, tmp_path: Path) -> None:
    found = compare(data, wanted(steps=None, teraflops=1e-9), out=tmp_path / "out", progress=False)["dm"]
    assert re.match(r"teraflops = 1e-09: 10 steps of this cell, .* take [\d.e-]+\. Give at least that", str(found))


def _parts(data: Data, recipe: str) -> tuple[Built, ClassStore]:
    changes = {"images_per_class": 1, "precision": "fp32"}
    store, parts = CondensationPipeline().prepare(data.train, recipe, settings=SMALL, overrides=changes)
    return parts, store


def test_operations_of_cells_finished_before_are_counted_later(data: Data, tmp_path: Path) -> None:
    compare(data, wanted(), out=tmp_path / "out", progress=False)
    file = tmp_path / "out" / "cells" / "dm.json"
    before = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in before.items() if name != "flops"}))
    compare(data, wanted(), out=tmp_path / "out", progress=False)
    assert json.loads(file.read_text()) == before
    assert "teraflops" not in json.loads((tmp_path / "out" / "plan.json").read_text()), "older folders go on"


def test_a_cell_that_cannot_run_does_not_stop_the_others(data: Data, tmp_path: Path) -> None:
    plan = wanted(recipes=("cafe", "dm"), settings=(*SMALL, "source.arch=mlp"))  # cafe looks at maps: it has none
    found = compare(data, plan, out=tmp_path / "out", progress=False)
    assert 'see.layer = "maps"' in str(found["cafe"])
    assert isinstance(found["dm"], tuple)
    assert 'see.layer = "maps"' in (why := json.loads((tmp_path / "out" / "cells" / "cafe.json").read_text())["failed"])
    assert f"## Cells that failed\n\n- cafe: {why}\n" in (tmp_path / "out" / "README.md").read_text()


def test_misspelt_recipes_and_keys_are_refused_before_any_work(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"dmm": no such recipe'):
        compare(data, wanted(recipes=("dm", "dmm")), out=tmp_path / "out", progress=False)
    with pytest.raises(RecipeError, match=r'optim: "rate"'):
        compare(data, wanted(settings=("optim.rate=1",)), out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="two cells have one name"):
        wanted(recipes=("dm", "own/dm.toml"))


def test_what_is_there_of_another_recipe_is_not_taken_for_this_one(data: Data, tmp_path: Path) -> None:
    fast, slow = ({"v": (f"optim.lr={rate}",)} for rate in (0.5, 0.1))
    first = compare(data, wanted(variants=fast), out=tmp_path / "out", progress=False)
    assert compare(data, wanted(variants=fast), out=tmp_path / "out", progress=False) == first
    other = compare(data, wanted(variants=slow), out=tmp_path / "out", progress=False)
    assert "dm-v: its recipe, settings or decoder are others than when it was begun. Give" in str(other["dm-v"])
    (tmp_path / "out" / "cells" / "dm-v.json").write_text("")
    damaged = compare(data, wanted(variants=slow), out=tmp_path / "out", progress=False)
    assert re.search(r"dm-v\.json: damaged \(.*Delete it", str(damaged["dm-v"]))


def test_what_another_decoder_of_that_folder_made_is_not_taken_for_this_ones(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = wanted(settings=("source.width=4", "source.num_per_class=5", "init=prior", "decoder=own/gan"))
    tiny_decoder("gan").save_pretrained("own/gan")
    first = compare(data, plan, out="out", progress=False)
    assert isinstance(first["dm"], tuple)
    assert compare(data, plan, out="out", progress=False) == first
    tiny_decoder("gan", seed=1).save_pretrained("own/gan")
    assert "dm: its recipe, settings or decoder are others" in str(compare(data, plan, out="out", progress=False)["dm"])


def test_held_out_images_are_neither_condensed_nor_tested_on(data: Data, tmp_path: Path) -> None:
    found = compare(data, wanted(splits=("held-out", "test")), out=tmp_path / "out", progress=False)
    assert isinstance(found["dm"], tuple)
    chosen, told = found["dm"]
    assert (chosen.split, told.split) == ("held-out", "test")
    assert not [note for report in found["dm"] for note in report.notes if "condensed" in note], "one set of images"
    rest, _ = data.train.holdout()
    assert chosen.fingerprint == told.fingerprint == rest.spec.fingerprint
    assert told.source_sha256 == chosen.source_sha256, "one bundle"
    seconds = [[run.seconds for row in report.rows for run in row.runs] for report in found["dm"]]
    assert seconds[0] == seconds[1], "one training, judged on both"
    page = (tmp_path / "out" / "README.md").read_text()
    assert re.search(r"\n\| dm \| 2 \| \d+ \| [\d.e-]+ \|\n", page)
    assert page.index("## Held-out training images") < page.index("**held-out/dm**") < page.index("## Test images")


@pytest.mark.parametrize("failed", [None, "its own words"])
def test_a_cell_that_another_process_is_at_is_left_to_it(data: Data, tmp_path: Path, failed: str | None) -> None:
    both = wanted(recipes=("dm", "mdc"))
    plan = Plan.open(tmp_path / "out", both, data)
    plan.note("dm", "what went wrong an hour ago")
    order: list[str] = []

    def other() -> None:
        with plan.taking("dm", wait=True) as mine:
            assert mine
            plan.note("dm", None)  # as a cell does that begins
            busy.set()
            end = time.monotonic() + 60
            while not (tmp_path / "out" / "test" / "mdc" / "report.json").is_file() and time.monotonic() < end:
                time.sleep(0.01)
            order.append("dm given up")
            plan.note("dm", failed)

    busy = threading.Event()
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    busy.wait()
    found = compare(data, both, out=tmp_path / "out", progress=False)
    thread.join()
    assert order == ["dm given up"]
    assert list(found) == ["dm", "mdc"]
    assert isinstance(found["mdc"], tuple)
    assert isinstance(found["dm"], tuple) if failed is None else found["dm"] == failed, "not tried twice"


def test_the_command_reads_a_file_and_prints_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol("tiny", epochs=1))
    file = tmp_path / "comparison.toml"
    file.write_text(
        'recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nprotocol = "tiny"\nseeds = 1\nstudents = ["mlp"]\n'
        'settings = ["source.width=4", "source.num_per_class=5"]\n[variants]\npixels = ["decoder=pixels"]\n'
    )
    asked = ["compare", str(file), "--data", "fashion-mnist-mini", "--limit", "20", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "**test/dm-pixels**" in done.stdout
    assert "<!--" not in done.stdout
    told = CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(told.stdout)["dm-pixels"]["test"]["num_classes"] == 10
    with file.open("a") as more:
        more.write("free = []\n")
    told = CliRunner().invoke(app, [*asked, "--json", "--only", "dm-pixels"])
    assert list(json.loads(told.stdout)) == ["dm-pixels"], told.output
    wrong = CliRunner().invoke(app, [*asked, "--only", "dm-pixel"])
    assert 'Did you mean "dm-pixels"' in wrong.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes = []\nimages_per_class = 1\nsteps = 2", "at least one recipe"),
        ('recipes = ["dm"]\nsteps = 2', "exactly one of images_per_class and bytes_per_class"),
        (
            'recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nseconds = 3',
            "exactly one of seconds, teraflops and steps",
        ),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 0', "steps = 0: give a positive number"),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nprotocl = "quick"', 'Did you mean "protocol"'),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nprotocol = "quik"', 'Did you mean "quick"'),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nstudents = ["convnt"]', 'Did you mean "convnet"'),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nonly = ["dm-gan"]', '"dm-gan": no such cell'),
        (
            'recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nstudents = ["own_parts:None_"]',
            "cannot import None_ from own_parts",
        ),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nbaselines = ["medoid"]', 'Did you mean "medoids"'),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nsplits = ["heldout"]', 'Did you mean "held-out"'),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nsplits = []', "no splits"),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\n[variants]\n"a/b" = []', '"a/b" names files; use letters'),
        (
            'recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nsettings = ["steps=5"]',
            "all cells share this; give steps",
        ),
        ('recipes = "dm"\nimages_per_class = 1\nsteps = 2', "a list is needed"),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\nvariants = "gan"', "a section of names and lists"),
        ('recipes = ["dm"]\nimages_per_class = 1\nsteps = 2\n[variants]\ngan = "decoder=gan"', "a list is needed"),
        ("recipes = [", "not a TOML file"),
    ],
)
def test_mistakes_in_the_file_are_answered(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "comparison.toml"
    file.write_text(text)
    with pytest.raises((RecipeError, InputError), match=message):
        Comparison.load(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a comparison"):
        Comparison.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[1] / "reports").glob("*.toml")), ids=lambda file: file.stem
)
def test_every_cell_of_the_shipped_comparisons_is_a_recipe(file: Path) -> None:
    plan = Comparison.load(file)
    for recipe, settings in plan.cells.values():
        resolved = load_recipe(recipe, settings=settings, overrides={"images_per_class": plan.images_per_class})
        assert resolved.steps > 0
