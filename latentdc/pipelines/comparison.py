"""Compare methods on one footing: recipes times variants, each condensed for as long as the others and judged alike."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentdc.atomic import destination, replacing
from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, LatentDCError, RecipeError
from latentdc.evaluate import evaluate
from latentdc.evaluate.protocols import find_protocol
from latentdc.evaluate.records import Report
from latentdc.evaluate.sets import split_data, subject_of
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import load_recipe
from latentdc.recipe.toml import from_table
from latentdc.report import FILE, read_report, save_grid, update_tables, write_report

_log = logging.getLogger(__name__)
_PLAN = "plan.json"
_PAGE = "README.md"
_LEAST_STEPS = 10


@dataclass(frozen=True)
class Comparison:
    """What is compared, and on what footing. Cells are all recipes times all variants.

    Raises:
        RecipeError: no recipe, not exactly one of ``images_per_class`` and ``bytes_per_class`` or of ``seconds`` and
            ``steps``, or a number out of range.
        InputError: an unknown protocol.
    """

    recipes: tuple[str, ...]
    """Names of shipped recipes, or TOML files."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"": ()})
    """Settings ``"key=value"`` of each variant by its name; see ``load_recipe``."""
    settings: tuple[str, ...] = ()
    """Settings of all cells."""
    images_per_class: int | None = None
    bytes_per_class: int | None = None
    seconds: float | None = None
    """Condensation of each cell, compiling and sketching left out: its steps are measured on this machine, once."""
    steps: int | None = None
    """Or a number of steps, the same for all."""
    protocol: str = "quick"
    seeds: int = 3
    students: tuple[str, ...] = ("convnet",)
    baselines: tuple[str, ...] = ("random-real",)
    split: str = "test"
    """``"test"``, or ``"held-out"``: condensed and judged without a look at test images."""
    precision: str = "fp32"
    compile: bool = False
    """Compile networks, where a recipe allows it."""

    def __post_init__(self) -> None:
        find_protocol(self.protocol)
        if not self.recipes or not self.variants:
            raise RecipeError("a comparison needs at least one recipe and, if it names variants, one of these.")
        if len(self.cells) < len(self.recipes) * len(self.variants):
            raise RecipeError(f"comparison: two cells have one name among {', '.join(self.cells)}; rename a file.")
        for one, other in (("images_per_class", "bytes_per_class"), ("seconds", "steps")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise RecipeError(f"comparison: give exactly one of {one} and {other}.")
        for name in ("images_per_class", "bytes_per_class", "seconds", "steps", "seeds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"comparison: {name} = {value}: give a positive number.")

    @property
    def cells(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Recipe and settings of each cell by its name, ``recipe`` or ``recipe-variant``."""
        return {
            "-".join(part for part in (Path(recipe).stem, variant) if part): (recipe, (*self.settings, *own))
            for variant, own in self.variants.items()
            for recipe in self.recipes
        }

    @staticmethod
    def load(path: str | Path) -> Comparison:
        """A comparison from a TOML file whose keys are the fields above; variants are sections ``[variants]``.

        Raises:
            InputError: no such file.
            RecipeError: it is no TOML, or a key or value is wrong.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read as a comparison ({error.strerror}).") from error
        except ValueError as error:
            raise RecipeError(f"{path}: not a TOML file: {error}") from error
        found = from_table(Comparison, table, "")
        assert isinstance(found, Comparison)
        return found


def compare(
    data: Data,
    wanted: Comparison,
    *,
    out: str | Path,
    device: str | None = None,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, Report | str]:
    """Condense and judge every cell; what is finished is skipped, what was cut off goes on.

    In ``out``: ``plan.json`` (the footing, and the steps measured for each cell), ``bundles/CELL``,
    ``reports/CELL/report.json`` with the picture of the set, ``reports/runs.jsonl``, and after each cell a
    ``README.md`` with the table of all of them. A cell that cannot be run is noted in the plan, and tried again the
    next time.

    Args:
        data: the real images.
        wanted: what is compared.
        out: a folder of this comparison's own.
        device: where to compute; the best there is if None.
        workers: students trained at once.
        progress: show bars on standard error.

    Returns:
        The report of each cell by its name, or why there is none.

    Raises:
        InputError: no such recipe, or the folder holds another comparison or cannot be written.
        RecipeError: settings that no recipe has.
        DataError: no test images to judge by.
    """
    folder = destination(out)
    budget = {"images_per_class": wanted.images_per_class, "bytes_per_class": wanted.bytes_per_class}
    for recipe, settings in wanted.cells.values():  # a misspelt name or key is better known before the first cell
        load_recipe(recipe, settings=settings, overrides=budget)
    plan = _Plan.open(folder, wanted, data)
    real, _ = split_data(data.train, data.test, wanted.split)
    results: dict[str, Report | str] = {}
    for number, (name, (recipe, settings)) in enumerate(wanted.cells.items(), 1):
        _log.info("cell %d of %d: %s", number, len(wanted.cells), name)
        try:
            pipe = CondensationPipeline()
            if device is not None:
                pipe.to(device)
            pipe.set_progress_bar_config(disable=not progress)
            cell = _Cell(name, recipe, settings, folder, wanted, pipe)
            results[name] = cell.report(data, real, plan, workers=workers, progress=progress)
        except LatentDCError as error:
            _log.warning("%s: %s", name, error)
            results[name] = str(error)
        plan.note(name, results[name])
        _page(folder, wanted)
    return results


@dataclass(frozen=True)
class _Cell:
    """One recipe with one variant."""

    name: str
    recipe: str
    settings: tuple[str, ...]
    folder: Path
    wanted: Comparison
    pipe: CondensationPipeline

    def report(self, data: Data, real: ClassStore, plan: _Plan, *, workers: int, progress: bool) -> Report:
        """The finished report, after whatever of the work is left."""
        wanted, target = self.wanted, self.folder / "reports" / self.name
        if (target / FILE).is_file():
            return read_report(target)
        bundle = self.folder / "bundles" / self.name
        if not bundle.is_dir():
            changes = self._changes()
            steps = plan.steps(self.name, lambda: self._steps(real, changes))
            self.pipe(real, self.recipe, out=bundle, steps=steps, settings=self.settings, overrides=changes)
        subject = subject_of(bundle, real)
        found = evaluate(
            subject,
            data,
            wanted.protocol,
            students=wanted.students,
            seeds=wanted.seeds,
            baselines=wanted.baselines,
            split=wanted.split,
            precision=wanted.precision,
            compile=wanted.compile,
            device=str(self.pipe.device),
            runs=self.folder / "reports" / "runs.jsonl",
            workers=workers,
            progress=progress,
        )
        write_report(found, target)
        save_grid(target / "grid.png", subject.images.x, subject.images.owner, real.spec.class_names)
        return found

    def _changes(self) -> dict[str, Any]:
        """The footing as changes to the recipe."""
        wanted = self.wanted
        budget = {"images_per_class": wanted.images_per_class, "bytes_per_class": wanted.bytes_per_class}
        resolved = load_recipe(self.recipe, settings=self.settings, overrides=budget)
        twice = any(term.see.kind == "gradients" for term in resolved.objective.terms)
        return {**budget, "precision": wanted.precision, "compile": (wanted.compile and not twice) or None}

    def _steps(self, real: ClassStore, changes: Mapping[str, Any]) -> int | None:
        """Steps that the budget buys, as measured; None keeps a recipe that takes none."""
        wanted = self.wanted
        if not load_recipe(self.recipe, settings=self.settings, overrides=changes).steps:
            return None
        if wanted.steps is not None:
            return wanted.steps
        assert wanted.seconds is not None
        measured = self.pipe.estimate(real, self.recipe, settings=self.settings, overrides=changes)["step_seconds"]
        return max(_LEAST_STEPS, round(wanted.seconds / float(measured)))


@dataclass
class _Plan:
    """What the folder says of the comparison it holds."""

    path: Path
    footing: Mapping[str, Any]
    cells: dict[str, dict[str, Any]]

    @staticmethod
    def open(folder: Path, wanted: Comparison, data: Data) -> _Plan:
        """The plan of a folder, new or taken up again; recipes and variants may be added to it."""
        told = asdict(wanted)
        free = ("recipes", "variants")
        footing = {name: value for name, value in told.items() if name not in free}
        footing = json.loads(
            json.dumps({**footing, "data": data.train.spec.name, "fingerprint": data.train.spec.fingerprint})
        )
        path = folder / _PLAN
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            plan = _Plan(path, footing, {})
            plan.write()
            return plan
        held = json.loads(path.read_text(encoding="utf-8"))
        wrong = [
            f"{name} is {value!r}, was {held['footing'].get(name)!r}"
            for name, value in footing.items()
            if held["footing"].get(name) != value
        ]
        if wrong:
            raise InputError(
                f"{folder} holds a comparison on another footing: {'; '.join(wrong)}. Give another folder."
            )
        return _Plan(path, footing, held["cells"])

    def steps(self, name: str, measure: Callable[[], int | None]) -> int | None:
        """Steps of a cell, measured the first time and the same ever after."""
        cell = self.cells.setdefault(name, {})
        if "steps" not in cell:
            cell["steps"] = measure()
            self.write()
        found: int | None = cell["steps"]
        return found

    def note(self, name: str, result: Report | str) -> None:
        """Keep why a cell has no report, or forget it."""
        cell = self.cells.setdefault(name, {})
        cell.pop("failed", None)
        if isinstance(result, str):
            cell["failed"] = result
        self.write()

    def write(self) -> None:
        """Write the plan, whole or not at all."""
        with replacing(self.path) as part:
            part.write_text(
                json.dumps({"footing": self.footing, "cells": self.cells}, indent=1) + "\n", encoding="utf-8"
            )


def _page(folder: Path, wanted: Comparison) -> None:
    """The table of the finished cells, and on what footing they stand."""
    path = folder / _PAGE
    if not path.is_file():
        budget = f"{wanted.seconds:g} seconds" if wanted.seconds is not None else f"{wanted.steps} steps"
        size = (
            f"{wanted.images_per_class} images"
            if wanted.images_per_class is not None
            else f"{wanted.bytes_per_class} bytes"
        )
        text = f"# Comparison\n\n{size} a class; {budget} of condensation a cell.\n\n"
        path.write_text(text + "<!-- reports:begin -->\n<!-- reports:end -->\n", encoding="utf-8")
    update_tables(path, folder / "reports")
