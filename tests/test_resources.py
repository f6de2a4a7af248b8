"""What latentdc ships is found in a clone and in a wheel, and never mistaken for somebody else's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentdc import resources
from latentdc.errors import InputError
from latentdc.resources import find, shipped


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed package: a checkpoint and a recipe inside, folders of the same kinds beside it."""
    package = tmp_path / "latentdc"
    for root in (tmp_path, package / "_shipped"):
        (root / "checkpoints" / "gan").mkdir(parents=True)
        (root / "pipelines").mkdir()
        (root / "pipelines" / "dm.toml").touch()
    (tmp_path / "checkpoints" / "theirs").mkdir()
    return package


def test_a_wheel_reads_only_inside_itself(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_ROOTS", resources._roots(package))
    assert shipped("checkpoints") == {"gan": package / "_shipped" / "checkpoints" / "gan"}
    assert find("pipelines", "dm") == package / "_shipped" / "pipelines" / "dm.toml"


def test_a_clone_reads_beside_itself_first(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package.parent / "pyproject.toml").touch()
    monkeypatch.setattr(resources, "_ROOTS", resources._roots(package))
    assert find("checkpoints", "gan") == package.parent / "checkpoints" / "gan"
    assert find("pipelines", "dm") == package.parent / "pipelines" / "dm.toml"


def test_this_clone_ships_recipes() -> None:
    assert "dm" in shipped("pipelines")


@pytest.mark.parametrize(("kind", "said"), [("pipelines", "recipe"), ("checkpoints", "checkpoint")])
def test_what_is_not_shipped_is_refused_with_what_is(kind: str, said: str) -> None:
    with pytest.raises(InputError, match=f'"dm-gna": no such {said}. .*Known: '):
        find(kind, "dm-gna")
