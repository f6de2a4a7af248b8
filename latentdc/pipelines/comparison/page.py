"""The page of a comparison: its tables and plots."""

from __future__ import annotations

import importlib.util

from latentdc.atomic import replacing
from latentdc.pipelines.comparison.plan import Plan
from latentdc.pipelines.comparison.wanted import Comparison
from latentdc.plots import plot_accuracies
from latentdc.report import FILE, read_report, update_tables

_PLOTS = importlib.util.find_spec("matplotlib") is not None
_TITLES = {"held-out": "Held-out training images", "test": "Test images"}


def write_page(plan: Plan, wanted: Comparison) -> None:
    """The tables of the finished cells, split by split, on what footing they stand and what they took."""
    folder = plan.folder
    budgets = {"estimated seconds": wanted.seconds, "x 10^12 operations": wanted.teraflops, "steps": wanted.steps}
    budget = " or ".join(f"{value:g} {name}" for name, value in budgets.items() if value is not None)
    images = wanted.images_per_class
    size = f"{images} image{'s' * (images > 1)}" if images is not None else f"{wanted.bytes_per_class} bytes"
    parts = [f"# Comparison\n\n{size} a class; {budget} of condensation a cell."]
    for split in wanted.splits:
        found = {file.parent.name: read_report(file) for file in sorted((folder / split).glob(f"*/{FILE}"))}
        parts.append(f"## {_TITLES[split]}")
        if found and _PLOTS:
            for student in wanted.students:
                plot = plot_accuracies(
                    found, folder / "plots" / f"{split}-{student.replace(':', '.')}.png", student=student
                )
                parts.append(f"![accuracy of {student}]({plot.relative_to(folder).as_posix()})")
        parts.append(f"<!-- reports:begin {split}/* -->\n<!-- reports:end -->")
    parts += _took(plan)
    page = folder / "README.md"
    with replacing(page) as part:
        part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        update_tables(part, folder)


def _took(plan: Plan) -> list[str]:
    """Steps, seconds and operations of the cells, and why cells are missing."""
    rows = [
        f"| {name} | {'none' if cost.steps is None else f'{cost.steps:,}'} | "
        f"{'' if cost.seconds is None else f'{cost.seconds:,.0f}'} | "
        f"{'' if cost.teraflops is None else f'{cost.teraflops:,.3g}'} |"
        for name, cost in plan.costs().items()
    ]
    table = ["| cell | steps | seconds | 10^12 operations |", "|---|---:|---:|---:|", *rows]
    note = (
        "Networks that a pool trains once are among seconds and operations. Operations are those of convolutions and "
        "matrix products, counted, not timed."
    )
    parts = ["## What the cells took", "\n".join(table), note] if rows else []
    failures = [f"- {name}: {why}" for name, why in plan.failures().items()]
    return [*parts, "## Cells that failed", "\n".join(failures)] if failures else parts
