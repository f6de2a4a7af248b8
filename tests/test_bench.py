"""The benchmarks themselves: every workload runs (in a tiny size), and every record says what it was measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bench.bench_profile import KINDS, RECIPES, shares
from bench.bench_real_side import steps_from_landmarks, ways
from bench.bench_showing import showing
from bench.measure import RECORDS, condensed
from bench.saved import autoencoder, diffusion, growth, pulled_back
from bench.seconds_to import SOURCES, seconds_to
from bench.workloads import STAGES, TINY, WORKLOADS, Setting, prepared

from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES
from latentdc.evaluate.protocols import PROTOCOLS, Protocol
from latentdc.networks.compiled import observer
from latentdc.types import EMBEDDING, EVERYTHING

STORED = sorted(RECORDS.glob("*.json"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_runs_twice(name: str) -> None:
    work = prepared(name, TINY)
    work()
    work()


def test_every_discrepancy_is_measured() -> None:
    assert {f"discrepancy-{name}" for name in DISCREPANCIES} <= WORKLOADS.keys()
    assert {f"sketching-{name}" for name, part in DISCREPANCIES.items() if part.sketchable} <= WORKLOADS.keys()


def test_steps_and_bare_passes_are_timed_apart() -> None:
    setting = Setting(TINY)
    source = setting.sketch("mean")
    bare = setting.bare(source.network(0))
    plain: list[float] = []
    steps = setting.step_seconds(source, "mean", steps=3, skip=1, between=lambda step: plain.append(bare()))
    assert len(steps) == 3
    assert len(plain) == 4
    assert min(*steps, *plain) > 0


def test_passes_are_timed_by_how_they_are_run() -> None:
    seconds = showing(Setting(TINY), 6)
    assert min(seconds(observer(parts=parts)) for parts in (EMBEDDING, EVERYTHING)) > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_profile_shares_out_the_whole_step(recipe: str) -> None:
    found = shares(Setting(TINY), recipe, steps=1)
    assert tuple(found) == (*KINDS, "rest")
    assert sum(found.values()) == pytest.approx(1)
    assert found["convolution"] > 0


def test_both_ways_of_the_real_side_find_the_same() -> None:
    (own, plain), powers = ways(TINY, 6).values()
    for mine, theirs in zip(own(), plain(), strict=True):  # type: ignore[call-overload]
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(*(way() for way in powers))
    kept, anew = (way() for way in steps_from_landmarks(TINY, 4))
    torch.testing.assert_close(kept, anew)  # type: ignore[call-overload]


def test_a_step_by_hand_is_a_step_of_the_loop() -> None:
    setting = Setting(TINY)
    source = setting.sketch("mean")
    by_hand = setting.by_hand(source, "mean")
    stages = [by_hand(number) for number in range(2)]
    assert all(tuple(each) == STAGES and min(each.values()) >= 0 for each in stages)


def test_a_record_keeps_figures_and_no_names_of_machines() -> None:
    stats = {"median": 2.0, "iqr": 0.5, "min": 1.0, "rounds": 3, "data": [1.0, 2.0, 3.0]}
    report = {
        "machine_info": {"node": "my-host", "cpu": {"brand_raw": "A CPU", "count": 2}},
        "benchmarks": [{"name": "test_workload[decode]", "extra_info": {"peak_bytes": 7}, "stats": stats}],
    }
    record = condensed(report, "shared", [0.5, 0.4, 0.3], {"commit": "c" * 40})
    assert record["results"] == {
        "test_workload[decode]": {"median_s": 2.0, "iqr_s": 0.5, "min_s": 1.0, "rounds": 3, "peak_bytes": 7}
    }
    assert record["machine"]["cpu"] == "A CPU"
    assert record["note"] == "shared"
    assert "my-host" not in json.dumps(record)


def test_memory_of_the_pull_back_is_flat_in_latents_and_in_steps() -> None:
    """The counts of ``bench_memory.py``, at 32 pixels."""
    coder, short, long = autoencoder(32), diffusion(32, 2), diffusion(32, 6)
    few, many = pulled_back(coder, 2, 1), pulled_back(coder, 6, 1)
    assert many["saved_bytes"] == few["saved_bytes"] > 100_000
    assert many["live_bytes"] <= few["live_bytes"] + growth(coder, 4)
    two, six, rows = pulled_back(short, 2, 1), pulled_back(long, 2, 1), pulled_back(short, 6, 1)
    assert six["live_bytes"] <= 1.05 * two["live_bytes"]
    assert rows["live_bytes"] <= two["live_bytes"] + growth(short, 4)
    images = 2 * 3 * 32 * 32 * 4
    assert two["saved_bytes"] == six["saved_bytes"] == images, "what the loss itself keeps"
    assert pulled_back(diffusion(32, 6, recompute=False), 2, 1)["saved_bytes"] > 10 * images


@pytest.mark.parametrize("kind", SOURCES)
def test_runs_grow_until_the_accuracy_is_reached(
    kind: str, tiny_store: ClassStore, tiny_test_store: ClassStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROTOCOLS, "quick", Protocol("quick", epochs=1))
    small = ("decoder=pixels", "init=real", "source.width=4", "source.num_per_class=5", "source.num_pairs=2")
    data = Data(tiny_store, tiny_test_store)
    at_once = seconds_to(0, data, kind, images_per_class=1, settings=small, seeds=1, student="mlp", compile=False)
    assert [run["steps"] for run in at_once["runs"]] == [10]
    assert at_once["median_s"] == at_once["runs"][0]["seconds"] > 0
    assert ("sketch_seconds" in at_once) == (kind == "sketch")
    never = seconds_to(
        101, data, kind, images_per_class=1, settings=small, seeds=1, student="mlp", compile=False, most_seconds=0
    )
    assert never["median_s"] is None
    assert len(never["runs"]) == 1


def test_there_is_a_record() -> None:
    assert STORED
    assert any("memory_is_flat" in name for path in STORED for name in json.loads(path.read_text())["results"])


LOOP = "test_the_loop_adds_little_to_the_tensor_work_of_a_step"


def test_the_loop_cost_little_when_it_was_last_measured() -> None:
    """The newest record of the loop against the bare tensor work: at most a tenth."""
    told = [json.loads(path.read_text())["results"] for path in STORED]
    ratios = [found["ratio"] for each in told for name, found in each.items() if name == LOOP]
    assert ratios
    assert ratios[-1] <= 1.1


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_record_is_complete(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert len(record["commit"]) == 40
    assert {"cpu", "cores", "python", "torch", "threads", "load_before"} <= record["machine"].keys()
    assert record["results"]
    assert record["note"]
    for name, result in record["results"].items():
        assert result["median_s"] > 0
        assert "peak_bytes" in result or not name.startswith("test_workload")
