"""What people look at: text tables, ``report.json`` files, image grids, plots, and the tables of the README files."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentdc.errors import InputError, MissingExtraError
from latentdc.evaluate.records import Report, Row
from latentdc.grid import save_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FILE",
    "plot_bytes",
    "read_report",
    "save_grid",
    "storage_table",
    "table",
    "tables",
    "update_tables",
    "write_report",
]

FILE = "report.json"
_BEGIN = re.compile(r"<!-- (?P<what>reports|storage):begin(?: (?P<pattern>\S+))? -->")
_END = "<!-- {}:end -->"


def write_report(report: Report, folder: str | Path) -> Path:
    """Write ``report.json`` into a folder (made if need be) and return its path."""
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(report.to_json(), encoding="utf-8")
    part.replace(path)
    return path


def read_report(path: str | Path) -> Report:
    """Read a ``report.json``, given the file or its folder.

    Raises:
        InputError: there is no such file, or it is not a report.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such report; `latentdc evaluate --out FOLDER` writes one")
    try:
        return Report.from_json(file.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _cells(row: Row) -> list[str]:
    """Images and bytes per class, accuracy and number of runs, as printed."""
    accuracy = f"{row.accuracy_mean:.1f} ± {row.accuracy_std:.1f}" if row.num_runs > 1 else f"{row.accuracy_mean:.1f}"
    return [f"{row.images_per_class:g}", f"{row.bytes_per_class:,.0f}", accuracy, str(row.num_runs)]


def table(report: Report) -> str:
    """The report as a text table: accuracies in per cent, gains over random real images below it."""
    students = {row.student for row in report.rows}
    head = ["row", "images/class", "bytes/class", "accuracy", "runs"]
    lines = [head]
    for row in report.rows:
        name = row.name if row.basis == "equal-images" else f"{row.name} (equal bytes)"
        lines.append([f"{row.student}: {name}" if len(students) > 1 else name, *_cells(row)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    judged = "test images" if report.split == "test" else "held-out training images"
    title = f"{report.source}: {report.data}, protocol {report.protocol['name']}, {judged}, {report.precision}"
    gains = [
        f"gain over random-real ({gain.basis}, {gain.student}): {gain.gain_over_random:+.3f}, LRS {gain.lrs:.3f} "
        f"(alpha = {gain.computed})"
        for gain in report.gains
    ]
    return "\n".join([title, "", text[0], "-" * len(text[0]), *text[1:], "", *gains, *report.notes]).rstrip() + "\n"


def plot_bytes(reports: Sequence[Report], path: str | Path, *, student: str = "convnet") -> Path:
    """Plot accuracy against bytes per class, one line per kind of row, and return the picture's path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: no report has that student.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'latentdc[plot]'") from error
    rows = [row for report in reports for row in report.rows if row.student == student]
    if not rows:
        raise InputError(f'none of {len(reports)} reports has the student "{student}"')
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes: Axes = figure.subplots()
    for name in dict.fromkeys(row.name for row in rows):
        points = sorted({(r.bytes_per_class, r.accuracy_mean, r.accuracy_std) for r in rows if r.name == name})
        sizes, means, deviations = zip(*points, strict=True)
        axes.errorbar(sizes, means, deviations, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="bytes per class", ylabel="accuracy (%)")
    axes.legend()
    axes.grid(alpha=0.3)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


def tables(reports_dir: str | Path, pattern: str = "*") -> str:
    """Markdown tables of the ``report.json`` files under a folder: one per data set (its images), split, protocol.

    Args:
        reports_dir: searched for ``**/report.json``.
        pattern: only reports whose folder, relative to ``reports_dir``, matches (as in ``fnmatch``).
    """
    groups: dict[tuple[str, str, str, str], list[tuple[str, Report]]] = {}
    for name, report in _found(reports_dir, pattern):
        key = report.data, report.split, str(report.protocol["name"]), report.fingerprint
        groups.setdefault(key, []).append((name, report))
    return "\n".join(_group(*key[:3], reports) for key, reports in sorted(groups.items()))


def storage_table(reports_dir: str | Path, pattern: str = "*") -> str:
    """What every bundle of the reports costs in bytes, all classes together, as a Markdown table of four sums.

    Args:
        reports_dir: searched for ``**/report.json``.
        pattern: only reports whose folder, relative to ``reports_dir``, matches (as in ``fnmatch``).
    """
    costs: dict[str, list[tuple[str, Mapping[str, int]]]] = {}
    for name, report in _found(reports_dir, pattern):  # reports of one bundle share a line
        known = costs.setdefault(report.source, [])
        if "latents" in report.bytes and report.bytes not in [size for _, size in known]:
            known.append((name, report.bytes))
    found = {
        source if len(known) == 1 else f"{source} ({name})": size
        for source, known in costs.items()
        for name, size in known
    }
    lines = ["| bundle | latents | + scales, labels | + private decoder | + public decoder | same images, uint8 |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, size in sorted(found.items(), key=lambda each: (each[1]["latents"], each[0])):
        sums = [size["latents"], size.get("scales", 0) + size.get("labels", 0)]
        sums += [size.get("private_decoder", 0), size.get("public_decoder", 0)]
        cells = [*itertools.accumulate(sums), size.get("pixels_uint8", 0)]
        lines.append(f"| {name} | " + " | ".join(f"{value:,}" for value in cells) + " |")
    return "\n".join(lines) + "\n"


def _found(reports_dir: str | Path, pattern: str) -> list[tuple[str, Report]]:
    """Reports and their names, the folder relative to ``reports_dir``, in the order of the names."""
    root = Path(reports_dir)
    names = {file.parent.relative_to(root).as_posix(): file for file in sorted(root.rglob(FILE))}
    return [(name, read_report(file)) for name, file in names.items() if fnmatch.fnmatch(name, pattern)]


def _group(data: str, split: str, protocol: str, reports: Sequence[tuple[str, Report]]) -> str:
    """One Markdown table; of a baseline that several reports share, the row with most runs stands for all."""
    rows: dict[tuple[str, str, str, str], Row] = {}
    usual = Counter(report.precision for _, report in reports).most_common(1)[0][0]
    for name, report in reports:
        otherwise = "" if report.precision == usual else f" ({report.precision})"
        for row in report.rows:
            own = {"bundle": f"**{name}**", "undistilled": f"undistilled {name}", "encoded": f"encoded {name}"}
            shown = own.get(row.name, row.name) + otherwise
            images, stored, *_ = _cells(row)
            key = (row.student, shown, images, stored)
            if key not in rows or row.num_runs > rows[key].num_runs:
                rows[key] = row
    order = sorted(rows, key=lambda key: (key[0], rows[key].bytes_per_class, rows[key].accuracy_mean, key))
    lines = [(*key[:2], *_cells(rows[key])) for key in order]
    machines = sorted({f"{r.machine.cpu}, {r.machine.threads} threads, torch {r.machine.torch}" for _, r in reports})
    commits = sorted({r.machine.commit or "unknown" for _, r in reports})
    precisions = sorted({r.precision for _, r in reports})
    judged = "test images" if split == "test" else "held-out training images"
    notes = [f"- {name}: {note}." for name, report in reports for note in report.notes]
    return "\n".join(
        [
            f"{data}, protocol `{protocol}`, {judged}; accuracy in per cent, last epoch, mean ± sample deviation.",
            "",
            "| student | set | images/class | bytes/class | accuracy | runs |",
            "|---|---|---:|---:|---:|---:|",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"{'; '.join(machines)}; {', '.join(precisions)}; commit {', '.join(commits)}.",
            "",
            *([*notes, ""] if notes else []),
        ]
    )


def update_tables(path_md: str | Path, reports_dir: str | Path) -> bool:
    """Write the tables of committed reports between ``<!-- reports:begin -->`` and ``<!-- reports:end -->``.

    The first marker may name a pattern of report folders: ``<!-- reports:begin fashion-mnist/* -->``. Any number of
    such regions is filled; ``storage:begin`` and ``storage:end`` ask for what the bundles cost instead.

    Returns:
        Whether the file changed.

    Raises:
        InputError: the file has no region, or one without an end.
    """
    file = Path(path_md)
    before = file.read_text(encoding="utf-8")
    after, rest = "", before
    while match := _BEGIN.search(rest):
        closing = _END.format(match["what"])
        end = rest.find(closing, match.end())
        if end < 0:
            raise InputError(f"{file}: {match[0]} has no {closing} after it; add it where the tables end")
        made = (tables if match["what"] == "reports" else storage_table)(reports_dir, match["pattern"] or "*")
        after += rest[: match.end()] + "\n" + made + closing
        rest = rest[end + len(closing) :]
    if not after:
        raise InputError(
            f"{file}: no place for tables; add the lines <!-- reports:begin --> and {_END.format('reports')}"
        )
    after += rest
    if after != before:
        file.write_text(after, encoding="utf-8")
    return after != before
