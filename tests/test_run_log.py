"""The log of finished runs: only ever appended to, shared by several evaluations, read around torn lines."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import DivergenceError, InputError
from latentdc.evaluate import evaluate, runs
from latentdc.evaluate.protocols import Protocol
from latentdc.evaluate.records import Report, Run
from latentdc.evaluate.runs import RunLog
from latentdc.evaluate.sets import subject_of
from latentdc.evaluate.training import Settings, Task

RUN = Run(0, 50.0, 10, 3, 1.0)


def test_a_torn_line_is_kept_and_stepped_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs.jsonl"
    RunLog(path).add("a", RUN)
    torn = path.read_bytes() + b'{"identity": "b", "run'
    path.write_bytes(torn)
    log = RunLog(path)
    assert (log.find("a"), log.find("b")) == (RUN, None)
    assert "line 2, which was not finished" in caplog.text
    assert path.read_bytes() == torn
    log.add("b", RUN)
    log.add("c", RUN)
    assert path.read_bytes().startswith(torn + b"\n")
    assert RunLog(path).runs == {"a": RUN, "b": RUN, "c": RUN}


def test_reading_loses_nothing_that_others_append(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    RunLog(path).add("a", RUN)
    with path.open("a") as file:
        file.write('{"identity": "b"')
    ours, theirs = RunLog(path), RunLog(path)
    theirs.add("b", RUN)
    ours.add("c", RUN)
    assert RunLog(path).runs.keys() == {"a", "b", "c"}


def test_a_refresh_finds_what_others_have_appended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs.jsonl"
    ours, theirs = RunLog(path), RunLog(path)
    theirs.add("a", RUN)
    ours.refresh()
    with path.open("a") as file:
        file.write('{"identity": "é')
    ours.refresh()
    ours.refresh()
    assert caplog.text.count("line 2, which was not finished") == 1
    theirs.add("b", RUN)
    ours.refresh()
    assert (ours.find("a"), ours.find("b")) == (RUN, RUN)
    ours.add("c", RUN)
    theirs.refresh()
    assert theirs.runs.keys() == RunLog(path).runs.keys() == {"a", "b", "c"}
    path.write_text(path.read_text().splitlines(keepends=True)[0])  # as somebody would who is told to delete a line
    RunLog(path).add("d", RUN)
    theirs.refresh()
    assert theirs.find("d") == RUN


def test_a_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: written.append(bytes(data)) or whole(file, data))
    log = RunLog(tmp_path / "runs.jsonl")
    log.add("a", RUN)
    log.add("b", RUN, row="bundle")
    assert [line.count(b"\n") for line in written] == [1, 1]
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:5]))
    with pytest.raises(OSError, match="only 5 of"):
        log.add("c", RUN)


def test_an_unfinished_write_at_the_end_counts_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    RunLog(path).add("a", RUN)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    log = RunLog(path)
    assert log.find("a") == RUN
    log.add("b", RUN)
    assert RunLog(path).runs.keys() == {"a", "b"}


@pytest.mark.parametrize("text", ["nonsense\n{}", '{"identity": "a"}\n', "{}"])
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="line 1"):
        RunLog(path)


def test_a_run_belongs_to_whoever_claims_it_first(tmp_path: Path) -> None:
    ours, theirs = (RunLog(tmp_path / "runs.jsonl") for _ in range(2))
    assert [ours.claim("a"), ours.claim("a"), theirs.claim("a")] == [True, True, False]
    assert [ours.claim("b"), theirs.claim("c")] == [True, True], "one at a time"
    ours.add("a", RUN)
    assert not theirs.claim("a")
    assert theirs.find("a") == RUN
    ours.release()
    assert theirs.claim("b"), "given up"
    assert sorted(os.listdir(tmp_path)) == ["runs.jsonl", "runs.jsonl.b.lock", "runs.jsonl.c.lock"], "what is claimed"
    theirs.release()
    assert os.listdir(tmp_path) == ["runs.jsonl"]
    assert RunLog(None).claim("a")


def test_a_claim_may_wait_until_the_other_has_finished_or_given_up(tmp_path: Path) -> None:
    ours = RunLog(tmp_path / "runs.jsonl")
    found: dict[str, bool] = {}

    def wait(name: str) -> None:
        theirs = RunLog(tmp_path / "runs.jsonl")
        found[name] = theirs.claim(name, wait=True)
        theirs.release()

    threads = [threading.Thread(target=wait, args=(name,), daemon=True) for name in "ab"]
    assert all([ours.claim("a"), ours.claim("b")])
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert not found
    ours.add("a", RUN)
    threads[0].join(timeout=60)
    assert found == {"a": False}
    ours.release()
    threads[1].join(timeout=60)
    assert found == {"a": False, "b": True}


@pytest.mark.parametrize("fails", [False, True])
def test_evaluations_side_by_side_train_each_run_once(
    fails: bool, tiny_store: ClassStore, tiny_test_store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: Counter[tuple[str, ...]] = Counter()
    order, busy = itertools.count(), threading.Barrier(2)

    def train_run(task: Task, settings: Settings) -> tuple[Run, ...]:
        number = next(order)
        trained[tuple(task.identities)] += 1
        if number < 2:
            busy.wait(timeout=60)  # both are at a run: not at the same
        if fails and number == 0:
            raise DivergenceError("the first of all")
        return tuple(Run(task.seed, float(task.seed), len(task.images), 1, 0.0) for _ in task.judges)

    monkeypatch.setattr(runs, "train_run", train_run)
    reports: list[Report] = []
    errors: list[DivergenceError] = []

    def one() -> None:
        subject, data = subject_of(tiny_store, tiny_store), Data(tiny_store, tiny_test_store)
        try:
            reports.append(
                evaluate(
                    subject,
                    data,
                    Protocol("tiny", epochs=1),
                    seeds=4,
                    baselines=(),
                    runs=tmp_path / "runs.jsonl",
                    progress=False,
                )
            )
        except DivergenceError as error:
            errors.append(error)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(trained.values()) == ([1, 1, 1, 2] if fails else [1, 1, 1, 1])
    assert (len(reports), len(errors)) == ((1, 1) if fails else (2, 0))
    assert {report.rows for report in reports} == {reports[0].rows}
    assert [run.accuracy for run in reports[0].rows[0].runs] == [0.0, 1.0, 2.0, 3.0]
    assert os.listdir(tmp_path) == ["runs.jsonl"]
