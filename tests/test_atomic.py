"""Files that appear whole or not at all, and that earlier ones still load."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from latentdc.atomic import destination, digest_tensors, read_tensors, replacing, write_tensors
from latentdc.errors import BundleError, InputError
from latentdc.machine import processor

TENSORS = {"b": torch.arange(6.0, dtype=torch.float64).reshape(2, 3).T, "a": torch.tensor(3), "none": torch.empty(0)}


def test_round_trip(tmp_path: Path) -> None:
    write_tensors(tmp_path / "deep" / "x.safetensors", TENSORS, {"text": "é"})
    tensors, texts = read_tensors(tmp_path / "deep" / "x.safetensors")
    assert texts == {"text": "é"}
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert digest_tensors(tensors) == digest_tensors(TENSORS)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.safetensors"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half")
            assert path.read_text() == "old"
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    with replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_the_file_is_on_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("sync") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda old, new: done.append("replace") or replace(old, new))
    write_tensors(tmp_path / "x", TENSORS, {})
    assert done == ["sync", "replace", "sync"]


def test_digest_tells_names_types_shapes_and_values_apart() -> None:
    base = digest_tensors({"x": torch.zeros(2, 3)})
    others = [
        {"y": torch.zeros(2, 3)},
        {"x": torch.zeros(3, 2)},
        {"x": torch.zeros(2, 3, dtype=torch.int32)},
        {"x": torch.tensor([[0.0, 0, 0], [0, 0, -0.0]])},
    ]
    assert len({base, *map(digest_tensors, others)}) == 5


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"text")
    for name in ("x", "missing"):
        with pytest.raises(BundleError, match="not a readable safetensors file"):
            read_tensors(tmp_path / name)


def test_the_processor_has_a_name() -> None:
    assert processor().strip() == processor() != ""


def test_a_destination_has_a_name_and_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert destination("new/er") == Path("new/er")
    assert destination(".") == tmp_path / "deep"
    assert destination("..") == destination("new/../..") == tmp_path
    (tmp_path / "file").write_text("")
    for wrong, why in (
        (tmp_path / "file" / "x", f"{tmp_path / 'file'} is a file"),
        (tmp_path / "file" / "x" / "y", f"{tmp_path / 'file'} is a file"),
        ("/", "it has no name"),
        ("x" * 999, "too long"),
        *([("/proc/x/y", "nothing can be written there")] if Path("/proc").is_dir() else []),
    ):
        with pytest.raises(InputError, match=rf"{why}.*choose another place \(--out\)"):
            destination(wrong)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "file"]
