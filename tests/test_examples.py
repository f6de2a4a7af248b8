"""Every example runs, with tiny settings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "examples"
PARTS_OF_EXAMPLES = {"cosine_decoder"}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_every_example_is_tested() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")} - PARTS_OF_EXAMPLES
    assert names == {name.removeprefix("test_") for name in globals() if name.startswith("test_")} - {
        "every_example_is_tested"
    }


def test_own_discrepancy() -> None:
    bank = importlib.import_module("own_discrepancy").main(limit=10, pairs=2, steps=2, width=8)
    assert bank.num_rows == 10
    assert bool(torch.isfinite(bank.z["x"]).all())


def test_own_decoder(tmp_path: Path) -> None:
    folder = importlib.import_module("own_decoder").main(tmp_path / "out", limit=10, per_class=2, steps=2, width=8)
    assert list((folder / "decoder").glob("modeling_cosinedecoder_*.py"))


def test_own_data(tmp_path: Path) -> None:
    out = importlib.import_module("own_data").main(tmp_path, steps=2)
    assert out.bundle.spec.class_names == ("circle", "square")
    assert out.bundle.bank.num_rows == 4


def test_quickstart(tmp_path: Path) -> None:
    report = importlib.import_module("quickstart").main(tmp_path / "run", limit=10, pairs=2, steps=2, epochs=1, width=8)
    assert {row.name for row in report.rows} >= {"bundle", "random-real"}
