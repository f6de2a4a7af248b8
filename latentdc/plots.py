"""Plots of reports: accuracy against bytes, and accuracies side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentdc.atomic import replacing
from latentdc.errors import InputError, MissingExtraError
from latentdc.evaluate.records import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_bytes(reports: Sequence[Report], path: str | Path, *, student: str = "convnet") -> Path:
    """Plot accuracy against bytes per class, one line per kind of row, and return the picture's path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: no report has that student.
    """
    rows = _rows_of(student, reports)
    figure, axes = _figure(6, 4)
    for name in dict.fromkeys(row.name for row in rows):
        points = sorted({(r.bytes_per_class, r.accuracy_mean, _bar(r)) for r in rows if r.name == name})
        sizes, means, deviations = zip(*points, strict=True)
        axes.errorbar(sizes, means, deviations, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="bytes per class", ylabel="accuracy (%)")
    axes.legend()
    return _save(figure, path)


def plot_accuracies(reports: Mapping[str, Report], path: str | Path, *, student: str = "convnet") -> Path:
    """Plot the accuracy of each set as a dot, best on top, real images as lines; return the picture's path.

    Args:
        reports: by the name that stands beside the dot.
        path: of the PNG file.
        student: whose accuracies.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: no report has that student.
    """
    rows = _rows_of(student, list(reports.values()))
    own = [
        (n, row) for n, each in reports.items() for row in each.rows if (row.student, row.name) == (student, "bundle")
    ]
    own.sort(key=lambda each: each[1].accuracy_mean)
    figure, axes = _figure(7, 1.2 + 0.22 * len(own))
    means, deviations = [row.accuracy_mean for _, row in own], [_bar(row) for _, row in own]
    axes.errorbar(means, range(len(own)), xerr=deviations, fmt="o", capsize=3, markersize=4)
    axes.set_ylim(-0.6, len(own) - 0.4)
    axes.set_yticks(range(len(own)), [name for name, _ in own], fontsize=8)
    # What a decoder makes undistilled is another line for each decoder: it stands in the tables.
    real = {(row.name, row.images_per_class): row for row in rows if row.name in ("random-real", "medoids")}
    for number, ((name, images), row) in enumerate(sorted(real.items(), key=lambda each: each[1].accuracy_mean), 1):
        label = f"{name}, {images:g} a class"
        axes.axvline(row.accuracy_mean, color=f"C{number}", linestyle="--", linewidth=1, label=label)
    axes.set_xlabel("accuracy (%)")
    if real:
        figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return _save(figure, path)


def _bar(row: Row) -> float:
    """Length of an error bar; NaN, which draws none, where one run has no deviation."""
    return math.nan if row.accuracy_std is None else row.accuracy_std


def _rows_of(student: str, reports: Sequence[Report]) -> list[Row]:
    rows = [row for report in reports for row in report.rows if row.student == student]
    if not rows:
        raise InputError(f'none of {len(reports)} reports has the student "{student}"')
    return rows


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, inches wide and high."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'latentdc[plot]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: str | Path) -> Path:
    file = Path(path)
    with replacing(file) as part:
        figure.savefig(part, dpi=150, format="png")
    return file
