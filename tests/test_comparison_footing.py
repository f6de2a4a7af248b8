"""What the cells of a comparison share, what its budgets buy, and what its tables and plots show of whom."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_parts import tiny_decoder

from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, RecipeError
from latentdc.evaluate import PROTOCOLS, Protocol, runs
from latentdc.evaluate.records import Machine, Report, Row, Run
from latentdc.evaluate.training import Settings, Task
from latentdc.pipelines.comparison import Comparison, compare, run
from latentdc.pipelines.comparison.plan import Cost, Plan
from latentdc.plots import plot_accuracies, plot_bytes
from latentdc.recipe import Built, Flops, build, count_flops, dry_run, estimate, identity, parse_recipe
from latentdc.report import table, tables, write_report

SMALL = ("source.width=4", "source.num_per_class=5", "init=real")
CPU = torch.device("cpu")


@pytest.fixture
def data(tiny_store: ClassStore, tiny_test_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol("tiny", epochs=1))
    return Data(tiny_store, tiny_test_store)


def wanted(**changes: Any) -> Comparison:
    given = {"images_per_class": 1, "steps": 2, "protocol": "tiny", "seeds": 1, "students": ("mlp",)}
    return Comparison(**{"recipes": ("dm",), "settings": SMALL, **given, **changes})


def test_the_file_decides_how_cells_are_condensed_and_judged(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def note(task: Task, settings: Settings) -> tuple[Run, ...]:
        seen.append(settings)
        return tuple(Run(task.seed, 50.0, len(task.images), 1, 0.0) for _ in task.judges)

    monkeypatch.setattr(runs, "train_run", note)
    plan = wanted(
        images_per_class=None,
        bytes_per_class=2 * 256 + 4,
        settings=(*SMALL, "optim.lr=1"),
        variants={"own": ("optim.lr=2",)},
        precision="bf16",
        seeds=2,
        students=("mlp", "convnet"),
        baselines=("medoids",),
    )
    found = compare(data, plan, out=tmp_path / "out", device="cpu", progress=False)["dm-own"]
    assert isinstance(found, tuple), found
    told = json.loads((tmp_path / "out" / "bundles" / "dm-own" / "provenance.json").read_text())["provenance"]
    recipe = tomllib.loads(told["recipe_toml"])
    assert recipe["optim"]["lr"] == 2, "what a variant says comes after what is said of all"
    assert (recipe["precision"], recipe["steps"], recipe["bytes_per_class"]) == ("bf16", 2, 516)
    (report,) = found
    assert (report.precision, report.seeds, report.protocol["name"]) == ("bf16", (0, 1), "tiny")
    assert [(row.student, row.name) for row in report.rows if row.basis == "equal-images"] == [
        (student, name) for student in ("mlp", "convnet") for name in ("bundle", "medoids")
    ]
    assert report.rows[0].images_per_class == 2
    assert {(each.precision, each.protocol.name, each.device) for each in seen} == {("bf16", "tiny", "cpu")}


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"seconds": 20.3}, 16),
        ({"seconds": 20.9}, 17),
        ({"seconds": 0.1}, 10),  # a step of 1.25 s fits in none of these
        ({"teraflops": 0.0174}, 12),
        ({"teraflops": 0.0176}, 13),
        ({"steps": 3}, 3),
    ],
)
def test_a_budget_buys_the_nearest_number_of_steps_on_the_images_that_may_be_seen(
    budget: dict[str, float], steps: int, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int | None]] = []

    def measure(_: Any, store: ClassStore, *__: Any, **___: Any) -> dict[str, float]:
        asked.append((store.fingerprint(), None))
        return {"step_seconds": 1.25, "total_seconds": 100.0}

    def count(_: Any, store: ClassStore, **__: Any) -> Flops:
        asked.append((store.fingerprint(), None))
        return Flops(step=1e9, networks=5e9)

    def condense(_: Any, store: ClassStore, *__: Any, steps: int, **___: Any) -> None:
        asked.append((store.fingerprint(), steps))
        raise RecipeError("far enough")

    monkeypatch.setattr(run.CondensationPipeline, "estimate", measure)
    monkeypatch.setattr(run.CondensationPipeline, "__call__", condense)
    monkeypatch.setattr(run, "count_flops", count)
    plan = wanted(**{"steps": None, **budget}, splits=("test", "held-out"))
    assert compare(data, plan, out=tmp_path / "out", progress=False) == {"dm": "far enough"}
    assert asked[-1][1] == steps
    assert {of for of, _ in asked} == {data.train.holdout()[0].fingerprint()}


def test_what_a_cell_took_is_its_networks_and_all_of_its_steps(data: Data, tmp_path: Path) -> None:
    plan = Plan.open(tmp_path / "out", wanted(), data)
    assert plan.steps("a", lambda: 7) == plan.steps("a", lambda: 9) == 7
    assert plan.flops("a", lambda: Flops(2e12, 3e12)) == plan.flops("a", lambda: Flops(0, 0))
    assert plan.costs() == {"a": Cost(7)}, "it is not done"
    plan.took("a", 2.5)
    assert plan.costs() == {"a": Cost(7, 2.5, 17.0)}
    plan.note("a", "out of memory")
    assert plan.failures() == {"a": "out of memory"}
    plan.note("a", None)
    assert (plan.failures(), plan.costs()) == ({}, {"a": Cost(7, 2.5, 17.0)})


def test_a_folder_is_of_one_set_of_images_and_one_footing(data: Data, tmp_path: Path, make_store: Any) -> None:
    Plan.open(tmp_path / "out", wanted(), data)
    Plan.open(tmp_path / "out", wanted(variants={"": (), "b": ()}, only=("dm-b",)), data)
    with pytest.raises(InputError, match="on another footing: fingerprint is"):
        Plan.open(tmp_path / "out", wanted(), Data(make_store(seed=5), data.test))
    others = {"steps": 3, "students": ("convnet",), "splits": ("held-out",), "precision": "bf16", "baselines": ()}
    for name, value in others.items():
        with pytest.raises(InputError, match=f"on another footing: {name} is"):
            Plan.open(tmp_path / "out", wanted(**{name: value}), data)


def _built(store: ClassStore, **changes: Any) -> Built:
    table = {"images_per_class": 2, "steps": 3, "init": "real", "source": {"arch": "mlp", "width": 8, "num_pairs": 2}}
    return build(parse_recipe(table, overrides={k.replace("__", "."): v for k, v in changes.items()}), store.spec)


@pytest.mark.parametrize(("images", "seconds"), [(None, 2 * (36 + 17)), (7, 2 * (21 + 17))])
def test_a_sketch_is_estimated_by_its_pairs_and_images(
    images: int | None, seconds: float, tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second an image and five a pair: four images of each class are the overhead's measure."""
    now, take = [0.0], estimate.sketch

    def sketch(store: ClassStore, *given: Any, **more: Any) -> Any:
        now[0] += len(store) + 5
        return take(store, *given, **more)

    monkeypatch.setattr(estimate, "sketch", sketch)
    monkeypatch.setattr("latentdc.recipe.estimate.time.perf_counter", lambda: now[0])
    told = dry_run(_built(tiny_store, source__kind="sketch", source__images_per_pair=images), tiny_store, device=CPU)
    assert told["sketch_seconds"] == seconds
    assert told["total_seconds"] == seconds


def test_an_estimate_leaves_a_formation_that_learns_as_it_was(tiny_store: ClassStore) -> None:
    parts = _built(tiny_store, formation={"kind": "hallucinators", "num": 2})
    assert isinstance(parts.formation, torch.nn.Module)
    before = {name: value.clone() for name, value in parts.formation.state_dict().items()}
    assert before
    dry_run(parts, tiny_store, device=CPU)
    count_flops(parts, tiny_store, device=CPU)
    for name, value in parts.formation.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_networks_are_paid_for_by_images_and_passes(make_store: Any) -> None:
    store = make_store(100)  # more in all than a mini-batch has

    def paid(**options: int) -> float:
        parts = _built(store, source__pool={"kind": "blended", "num": 1, **options})
        return count_flops(parts, store, device=CPU).networks

    once = paid(num_images=150, epochs=1)
    assert paid(num_images=150, epochs=3) == 3 * once
    assert paid(num_images=300, epochs=1) == pytest.approx(2 * once, rel=0.01)


def test_other_statistics_of_the_same_images_are_another_run(tiny_store: ClassStore) -> None:
    other = tiny_store.with_statistics([0.1], [0.7])
    recipe, decoder = parse_recipe({"images_per_class": 2}), tiny_decoder("gan")
    one, two = (identity(build(recipe, store.spec, decoder=decoder)) for store in (tiny_store, other))
    assert {name for name in one if one[name] != two[name]} == {"data.mean", "data.std"}


def report(**accuracies: tuple[float, ...]) -> Report:
    """A report whose rows are named STUDENT__ROW."""
    rows = []
    for text, found in accuracies.items():
        student, _, name = text.replace("random_real", "random-real").partition("__")
        size, basis = (788, "equal-bytes") if name == "random-real" else (72, "equal-images")
        rows.append(Row(name, basis, student, 1, 1, size, tuple(Run(i, a, 3, 1, 1.0) for i, a in enumerate(found))))
    where = Machine("a processor", 2, "cpu", "2.14", "abc123")
    return Report(
        source="set",
        source_sha256="ab",
        protocol={"name": "quick"},
        data="fashion",
        fingerprint="cd",
        split="test",
        class_names=("shirt", "sandal"),
        seeds=(0,),
        precision="fp32",
        rows=tuple(rows),
        gains=(),
        bytes={"latents": 64},
        full_accuracy=None,
        notes=(),
        machine=where,
        seconds=4.0,
    )


def test_tables_say_whose_figures_they_are_and_on_what(tmp_path: Path) -> None:
    both = report(mlp__bundle=(40.0,), mlp__random_real=(30.0, 33.0), convnet__random_real=(30.0, 33.0))
    chosen = dataclasses.replace(both, split="held-out")
    assert ("test images" in table(both), "held-out training images" in table(both)) == (True, False)
    assert ("test images" in table(chosen), "held-out training images" in table(chosen)) == (False, True)
    assert "mlp: random-real (equal bytes)" in table(both)
    write_report(both, tmp_path / "test" / "one")
    write_report(chosen, tmp_path / "held-out" / "one")
    first, second = tables(tmp_path).split("fashion, protocol `quick`, ")[1:]
    assert first.startswith("held-out training images;")
    assert second.startswith("test images;")
    for part in (first, second):
        for student in ("mlp", "convnet"):
            assert f"| {student} | random-real | 1 | 788 | 31.5 ± 2.1 | 2 |" in part
        assert "| mlp | **" in part
        assert "| 1 | 72 | 40.0 | 1 |" in part, "one run has no deviation"


def test_what_a_decoder_encodes_is_one_row_for_the_sets_it_is_the_control_of(tmp_path: Path) -> None:
    for name, accuracy in {"a": 57.0, "b": 57.0, "c": 60.0}.items():
        write_report(report(mlp__bundle=(70.0,), mlp__encoded=(accuracy,)), tmp_path / name)
    text = tables(tmp_path)
    assert text.count("encoded") == 2
    assert "| mlp | encoded a, b | 1 | 72 | 57.0 | 1 |" in text
    assert "| mlp | encoded c | 1 | 72 | 60.0 | 1 |" in text
    assert text.count("**") == 6


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of every plot that is saved."""
    figure = pytest.importorskip("matplotlib.figure")
    found: list[Any] = []

    def save(self: Any, file: Any, **_: Any) -> None:
        found.append(self.axes[0])
        Path(file).write_bytes(b"")

    monkeypatch.setattr(figure.Figure, "savefig", save)
    return found


def _bars(container: Any) -> list[float]:
    """Lengths of error bars, from the mark to an end."""
    (lines,) = container[2]
    return [float(abs(end - start).max() / 2) for start, end in lines.get_segments()]


def test_sets_stand_by_their_names_and_real_images_as_lines(drawn: list[Any], tmp_path: Path) -> None:
    one = report(mlp__bundle=(70.0, 74.0), mlp__random_real=(40.0,), mlp__undistilled=(55.0,), convnet__bundle=(9.0,))
    two = report(mlp__bundle=(60.0, 60.0), mlp__random_real=(40.0,), convnet__bundle=(90.0,))
    plot_accuracies({"one": one, "two": two}, tmp_path / "a.png", student="mlp")
    (axes,) = drawn
    (container,) = axes.containers
    assert [label.get_text() for label in axes.get_yticklabels()] == ["two", "one"], "the best is on top"
    assert container[0].get_xdata().tolist() == [60, 72]
    assert list(container[0].get_ydata()) == [0, 1]
    assert _bars(container) == pytest.approx([0, 8**0.5])
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("random-real")]
    assert (line.get_label(), line.get_xdata()) == ("random-real, 1 a class", [40, 40])


def test_accuracy_stands_over_the_bytes_of_a_class(drawn: list[Any], tmp_path: Path) -> None:
    one = report(mlp__bundle=(70.0, 74.0), mlp__random_real=(40.0, 42.0), convnet__bundle=(9.0,))
    more = tuple(dataclasses.replace(row, bytes_per_class=10) for row in one.rows)
    plot_bytes([one, dataclasses.replace(one, rows=more)], tmp_path / "b.png", student="mlp")
    (axes,) = drawn
    ours, random = axes.containers
    assert (ours.get_label(), random.get_label()) == ("bundle", "random-real")
    assert (ours[0].get_xdata().tolist(), ours[0].get_ydata().tolist()) == ([10, 72], [72, 72])
    assert (random[0].get_xdata().tolist(), random[0].get_ydata().tolist()) == ([10, 788], [41, 41])
    assert _bars(ours) == pytest.approx([8**0.5] * 2)
    assert axes.get_xscale() == "log"
