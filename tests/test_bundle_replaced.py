"""A bundle that takes another's place: killed at any moment, one of the two is found there; refusals come early."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tiny_parts import tiny_decoder, write_bundle
from torch import nn

from latentdc.bundle import attach_report, check_savable, load_bundle
from latentdc.errors import InputError


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture
def killed_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose bundle was set aside by a process that was killed before the new one took its place."""
    folder = write_bundle(tmp_path / "set")
    replace = os.replace

    def kill(source: Any, target: Any) -> None:
        if Path(target) == folder:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            write_bundle(folder, provenance={"seed": 8})
    assert not folder.exists()
    return folder


def test_loading_finds_the_old_bundle(killed_between: Path) -> None:
    assert load_bundle(killed_between).provenance["seed"] == 7
    assert [path.name for path in killed_between.parent.iterdir()] == ["set"]


def test_saving_again_replaces_it(killed_between: Path) -> None:
    write_bundle(killed_between, provenance={"seed": 9})
    assert load_bundle(killed_between).provenance["seed"] == 9
    assert [path.name for path in killed_between.parent.iterdir()] == ["set"]


def test_what_is_there_is_not_replaced_by_leftovers(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "set")
    write_bundle(tmp_path / ".set.replaced", provenance={"seed": 1})
    assert load_bundle(folder).provenance["seed"] == 7
    write_bundle(folder, provenance={"seed": 8})
    assert not (tmp_path / ".set.replaced").exists()


def test_a_report_is_never_half_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replace = write_bundle(tmp_path / "set"), os.replace
    attach_report(folder, {"accuracy": 1.0})
    for survived in range(3):
        calls = iter(range(9))

        def kill(source: Any, target: Any, calls: Any = calls, survived: int = survived) -> None:
            if next(calls) >= survived:
                raise Killed
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill)
            with pytest.raises(Killed):
                attach_report(folder, {"accuracy": 2.0})
        assert load_bundle(folder).report in ({"accuracy": 1.0}, None)
    attach_report(folder, {"accuracy": 9.0})
    assert load_bundle(folder).report == {"accuracy": 9.0}


def test_refusals_before_any_work(tmp_path: Path) -> None:
    decoder = tiny_decoder("gan")
    check_savable(tmp_path / "new", decoder=decoder)
    check_savable(write_bundle(tmp_path / "old"), decoder=decoder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no bundle"):
        check_savable(tmp_path / "mine", decoder=decoder)
    with pytest.raises(InputError, match="is a file"):
        check_savable(tmp_path / "mine" / "notes.txt", decoder=decoder)
    with pytest.raises(InputError, match="cannot be stored"):
        check_savable(tmp_path / "new", decoder=nn.Linear(2, 2))


def test_what_lies_beside_a_bundle_is_kept(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "set", formation="tiles", report={"accuracy": 1.0})
    (folder / "notes.txt").write_text("mine")
    (folder / "plots").mkdir()
    (folder / "plots" / "curve.png").write_bytes(b"mine too")
    (folder / "README.md").write_text("edited: a file of the bundle, which gives way")
    write_bundle(folder, formation=None, provenance={"seed": 8})
    assert ((folder / "notes.txt").read_text(), (folder / "plots" / "curve.png").read_bytes()) == ("mine", b"mine too")
    assert not (folder / "formation").exists()
    assert not (folder / "report.json").exists()
    back = load_bundle(folder)
    assert (back.provenance["seed"], back.formation, back.report) == (8, None, None)
    assert "edited" not in (folder / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_would_make_the_new_bundle_unreadable_is_neither_kept_nor_lost(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "set")
    for name in ("train.py", "bank/notes"):
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match=f"set: {name} is no part of the bundle that would be replaced .*move it"):
            write_bundle(folder, provenance={"seed": 8})
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    assert load_bundle(folder).provenance["seed"] == 7
