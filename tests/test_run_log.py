"""The log of finished runs: only ever appended to, shared by several evaluations, read around torn lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from latentdc.errors import InputError
from latentdc.evaluate.records import Run
from latentdc.evaluate.runs import RunLog

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
