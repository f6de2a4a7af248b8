"""What the folder of a comparison says of it: its footing, and of each cell the steps and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from latentdc.atomic import replacing
from latentdc.data.sources import Data
from latentdc.errors import InputError
from latentdc.pipelines.comparison.wanted import Comparison
from latentdc.recipe import Flops


@dataclass(frozen=True)
class Cost:
    """What a cell takes."""

    steps: int | None
    """None for a recipe that takes none."""
    seconds: float | None = None
    """Of its condensation, networks that a pool trains for it too; None before it is done."""
    teraflops: float | None = None
    """What was computed in these seconds, in 10^12 floating-point operations; None before it is done."""


@dataclass(frozen=True)
class Plan:
    """Every cell has a file of its own, so that processes side by side do not undo each other's notes."""

    folder: Path

    @staticmethod
    def open(folder: Path, wanted: Comparison, data: Data) -> Plan:
        """The plan of a folder, new or taken up again; recipes and variants may be added to it.

        Raises:
            InputError: the folder holds a comparison on another footing.
        """
        footing = {name: value for name, value in asdict(wanted).items() if name not in ("recipes", "variants", "only")}
        if footing["teraflops"] is None:  # folders begun before there was such a budget stay what they are
            del footing["teraflops"]
        footing |= {"data": data.train.spec.name, "fingerprint": data.train.spec.fingerprint}
        footing = json.loads(json.dumps(footing))
        file = folder / "plan.json"
        if not file.is_file():
            _write(file, footing)
        held = _read(file)
        if wrong := [
            f"{name} is {footing[name]!r}, was {held.get(name)!r}"
            for name in footing
            if held.get(name) != footing[name]
        ]:
            raise InputError(
                f"{folder} holds a comparison on another footing: {'; '.join(wrong)}. Give another folder (--out)."
            )
        return Plan(folder)

    @contextmanager
    def taking(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Whether this process has the cell to itself; another one's is waited for, or left to it."""
        lock = FileLock(self._place(name, "lock"))
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One process at a time writes what belongs to all cells."""
        with FileLock(self._place("page", "lock")):
            yield

    def must_agree(self, name: str, recipe: str) -> None:
        """Refuse to take what is there of a cell for that of another recipe.

        Args:
            name: of the cell.
            recipe: digest of its recipe, noted the first time.

        Raises:
            InputError: the recipe, the settings of its variant or its decoder were others when the cell was begun.
        """
        known = self._cell(name)
        if known.setdefault("recipe", recipe) != recipe:
            raise InputError(
                f"{name}: its recipe, settings or decoder are others than when it was begun. Give the variant another "
                f"name, or delete {self.folder}/cells/{name}.json, bundles/{name}, bundles/{name}.run and */{name}."
            )
        _write(self._place(name, "json"), known)

    def steps(self, name: str, measure: Callable[[], int | None]) -> int | None:
        """Steps of a cell, measured the first time and the same ever after."""
        if "steps" not in self._cell(name):
            found = measure()  # which may note other things of the cell
            _write(self._place(name, "json"), self._cell(name) | {"steps": found})
        steps: int | None = self._cell(name)["steps"]
        return steps

    def took(self, name: str, seconds: float | None) -> None:
        """Keep the seconds of a cell's condensation."""
        _write(self._place(name, "json"), self._cell(name) | {"seconds": seconds})

    def flops(self, name: str, count: Callable[[], Flops]) -> Flops:
        """Operations of a step of a cell and of the networks trained for it, counted once."""
        known = self._cell(name)
        if "flops" not in known:
            known["flops"] = asdict(count())
            _write(self._place(name, "json"), known)
        return Flops(**known["flops"])

    def costs(self) -> dict[str, Cost]:
        """What was measured of the cells begun so far, by their names."""
        return {
            name: Cost(known["steps"], known.get("seconds"), _teraflops(known))
            for name, known in self._cells().items()
            if "steps" in known
        }

    def failures(self) -> dict[str, str]:
        """Why cells have no report, by their names."""
        return {name: known["failed"] for name, known in self._cells().items() if "failed" in known}

    def note(self, name: str, failed: str | None) -> None:
        """Keep why a cell has no report, or forget it."""
        try:
            known = self._cell(name)
        except InputError:  # what is wrong with it has been said
            return
        known.pop("failed", None)
        _write(self._place(name, "json"), known | ({"failed": failed} if failed else {}))

    def _cells(self) -> dict[str, dict[str, Any]]:
        found = {}
        for file in sorted((self.folder / "cells").glob("*.json")):
            with suppress(InputError):  # what is wrong with a damaged one its cell says
                found[file.stem] = _read(file)
        return found

    def _cell(self, name: str) -> dict[str, Any]:
        file = self._place(name, "json")
        return _read(file) if file.is_file() else {}

    def _place(self, name: str, ending: str) -> Path:
        place = self.folder / "cells" / f"{name}.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _teraflops(known: Mapping[str, Any]) -> float | None:
    if known.get("seconds") is None or "flops" not in known:
        return None
    flops, steps = Flops(**known["flops"]), int(known["steps"])
    return (flops.networks + steps * flops.step) / 1e12


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: damaged ({error}). Delete it, or give another folder (--out).") from error
    return found


def _write(file: Path, told: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all."""
    with replacing(file) as part:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
