"""Running the cells of a comparison: what is finished is skipped, what was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentdc.atomic import destination
from latentdc.bundle.references import checksums
from latentdc.data.sources import Data
from latentdc.errors import LatentDCError, RecipeError
from latentdc.evaluate import evaluate
from latentdc.evaluate.records import Report
from latentdc.evaluate.sets import subject_of
from latentdc.pipelines.comparison.page import write_page
from latentdc.pipelines.comparison.plan import Plan
from latentdc.pipelines.comparison.wanted import Comparison
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import Flops, count_flops, load_recipe, start_identity
from latentdc.recipe.toml import to_toml
from latentdc.report import FILE, read_report, save_grid, write_report

_log = logging.getLogger(__name__)
_LEAST_STEPS = 10


def compare(
    data: Data,
    wanted: Comparison,
    *,
    out: str | Path,
    device: str | None = None,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, tuple[Report, ...] | str]:
    """Condense and judge every cell; what is finished is skipped, what was cut off goes on.

    In ``out``: ``plan.json`` (the footing), ``cells/CELL.json`` (steps, seconds, operations, and what went wrong),
    ``bundles/CELL``, ``SPLIT/CELL/report.json`` with the picture of the set, ``runs.jsonl``, and after each cell a
    ``README.md``, written anew, with the tables of all and, where matplotlib is there, plots. Processes that are
    given the same comparison and folder share the cells among them; seconds are then measured as they are, side by
    side. A cell that cannot be run is noted, and tried again the next time.

    Args:
        data: the real images.
        wanted: what is compared.
        out: a folder of this comparison's own.
        device: where to compute; the best there is if None.
        workers: students trained at once.
        progress: show bars on standard error.

    Returns:
        The reports of each cell by its name, one for each split, or why there are none.

    Raises:
        InputError: no such recipe, or the folder holds another comparison or cannot be written.
        RecipeError: settings that no recipe has.
        DataError: no test images to judge by.
    """
    folder = destination(out)
    budget = {"images_per_class": wanted.images_per_class, "bytes_per_class": wanted.bytes_per_class}
    for recipe, settings in wanted.cells.values():  # a misspelt name or key is better known before the first cell
        load_recipe(recipe, settings=settings, overrides=budget)
    seen = Data(wanted.seen(data), data.test)
    plan = Plan.open(folder, wanted, data)
    results: dict[str, tuple[Report, ...] | str] = {}
    for wait in (False, True):  # first what nobody is at, then what others have finished or given up
        for number, (name, (recipe, settings)) in enumerate(wanted.cells.items(), 1):
            if name in results:
                continue
            with plan.taking(name, wait=wait) as mine:
                if not mine:
                    continue
                if wait and (why := plan.failures().get(name)):  # whoever was at it tried a moment ago
                    results[name] = why
                    continue
                _log.info("cell %d of %d: %s", number, len(wanted.cells), name)
                pipe = CondensationPipeline()
                if device is not None:
                    pipe.to(device)
                pipe.set_progress_bar_config(disable=not progress)
                cell = _Cell(name, recipe, settings, folder, wanted, pipe)
                results[name] = cell.outcome(data, seen, plan, workers=workers, progress=progress)
            with plan.turn():
                write_page(plan, wanted)
    return {name: results[name] for name in wanted.cells}


@dataclass(frozen=True)
class _Cell:
    """One recipe with one variant."""

    name: str
    recipe: str
    settings: tuple[str, ...]
    folder: Path
    wanted: Comparison
    pipe: CondensationPipeline

    def outcome(self, data: Data, seen: Data, plan: Plan, *, workers: int, progress: bool) -> tuple[Report, ...] | str:
        """The reports, after whatever of the work is left, or why there are none."""
        plan.note(self.name, None)  # an old failure; one that is found from now on is of this time
        try:
            plan.must_agree(self.name, self._recipe())
            found = {  # held-out first, whose students are judged on the test images too
                split: self._report(split, data if split == "held-out" else seen, seen, plan, workers, progress)
                for split in sorted(self.wanted.splits)
            }
        except (LatentDCError, torch.OutOfMemoryError) as error:
            _log.warning("%s: %s", self.name, error)
            plan.note(self.name, str(error))
            return str(error)
        if plan.costs()[self.name].steps is not None:
            plan.flops(self.name, lambda: self._flops(seen))
        plan.note(self.name, None)
        return tuple(found[split] for split in self.wanted.splits)

    def _report(self, split: str, data: Data, seen: Data, plan: Plan, workers: int, progress: bool) -> Report:
        """The finished report of one split."""
        wanted, target = self.wanted, self.folder / split / self.name
        if (target / FILE).is_file():
            return read_report(target)
        subject = subject_of(self._bundle(seen, plan), seen.train)
        assert subject.bundle is not None
        plan.took(self.name, subject.bundle.provenance.get("seconds"))
        found = evaluate(
            subject,
            data,
            wanted.protocol,
            students=wanted.students,
            seeds=wanted.seeds,
            baselines=wanted.baselines,
            split=split,
            precision=wanted.precision,
            compile=wanted.compile,
            device=str(self.pipe.device),
            runs=self.folder / "runs.jsonl",
            also_on=[data.test] if split == "held-out" and "test" in wanted.splits and data.test else [],
            workers=workers,
            progress=progress,
        )
        save_grid(target / "grid.png", subject.images.x, subject.images.owner, seen.train.spec.class_names)
        write_report(found, target)  # the last thing, for it says that the cell is done
        return found

    def _bundle(self, seen: Data, plan: Plan) -> Path:
        """The bundle's folder, condensed if it is not there."""
        bundle = self.folder / "bundles" / self.name
        if not bundle.is_dir():
            changes = self._changes()
            steps = plan.steps(self.name, lambda: self._steps(seen, plan, changes))
            self.pipe(seen.train, self.recipe, out=bundle, steps=steps, settings=self.settings, overrides=changes)
        return bundle

    def _recipe(self) -> str:
        """Digest of all that the cell's recipe says, and of what lies in the folders that it names."""
        resolved = load_recipe(self.recipe, settings=self.settings, overrides=self._changes())
        decoder = resolved.decoder if isinstance(resolved.decoder, str) else resolved.decoder.kind
        lying = [start_identity(resolved), checksums(Path(decoder))]  # empty where it names none
        said = [to_toml(resolved), *(json.dumps(each) for each in lying if each)]
        return hashlib.sha256("".join(said).encode()).hexdigest()

    def _changes(self) -> dict[str, Any]:
        """The footing as changes to the recipe."""
        wanted = self.wanted
        budget = {"images_per_class": wanted.images_per_class, "bytes_per_class": wanted.bytes_per_class}
        return {**budget, "precision": wanted.precision, "compile": wanted.compile or None}

    def _steps(self, seen: Data, plan: Plan, changes: Mapping[str, Any]) -> int | None:
        """Steps that the budget buys, as measured; None keeps a recipe that takes none."""
        wanted = self.wanted
        if not load_recipe(self.recipe, settings=self.settings, overrides=changes).steps:
            return None
        if wanted.steps is not None:
            return wanted.steps
        if wanted.teraflops is not None:
            flops = plan.flops(self.name, lambda: self._flops(seen))
            least = (flops.networks + _LEAST_STEPS * flops.step) / 1e12
            if wanted.teraflops < least:
                raise RecipeError(
                    f"teraflops = {wanted.teraflops:g}: {_LEAST_STEPS} steps of this cell, with the networks that it "
                    f"trains, take {least:.3g}. Give at least that, or leave the cell out (only)."
                )
            return round((1e12 * wanted.teraflops - flops.networks) / flops.step)
        assert wanted.seconds is not None
        measured = self.pipe.estimate(seen.train, self.recipe, settings=self.settings, overrides=changes)
        return max(_LEAST_STEPS, round(wanted.seconds / float(measured["step_seconds"])))

    def _flops(self, seen: Data) -> Flops:
        store, built = self.pipe.prepare(seen.train, self.recipe, settings=self.settings, overrides=self._changes())
        return count_flops(built, store, device=self.pipe.device)
