"""What people look at: text tables, ``report.json`` files, image grids, and the tables of the README files."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from latentdc.atomic import replacing
from latentdc.errors import InputError
from latentdc.evaluate.records import Report, Row
from latentdc.grid import save_grid

__all__ = [
    "FILE",
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
    with replacing(path) as part:
        part.write_text(report.to_json(), encoding="utf-8")
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
    accuracy = f"{row.accuracy_mean:.1f}" + ("" if row.accuracy_std is None else f" ± {row.accuracy_std:.1f}")
    return [f"{row.images_per_class:g}", f"{row.bytes_per_class:,.0f}", accuracy, str(row.num_runs)]


def table(report: Report) -> str:
    """The report as a text table: accuracies in per cent, gains over random real images below it."""
    students = {row.student for row in report.rows}
    head = ["row", "images/class", "bytes/class", "accuracy", "runs"]
    lines = [head]
    for row in report.rows:
        name = f"{row.name} (equal bytes)" if row.basis == "equal-bytes" else row.name
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
    lines = [
        "| bundle | latents | + scales, labels, shared | + private decoder | + public decoder | same images, uint8 |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, size in sorted(found.items(), key=lambda each: (each[1]["latents"], each[0])):
        sums = [size["latents"], sum(size.get(part, 0) for part in ("scales", "labels", "shared"))]
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
    rows: dict[tuple[object, ...], Row] = {}
    names: dict[tuple[object, ...], list[str]] = {}
    usual = Counter(report.precision for _, report in reports).most_common(1)[0][0]
    for name, report in reports:
        otherwise = "" if report.precision == usual else f" ({report.precision})"
        for row in report.rows:
            images, stored, *_ = _cells(row)
            # What a decoder makes without the method is one row for all reports whose students it was for.
            found = tuple(run.accuracy for run in row.runs)
            own = {"bundle": name, "undistilled": found, "encoded": found}.get(row.name)
            key = (row.student, row.name + otherwise, images, stored, own)
            names.setdefault(key, []).append(name)
            if key not in rows or row.num_runs > rows[key].num_runs:
                rows[key] = row
    shown = {key: _shown(row.name, names[key], str(key[1])) for key, row in rows.items()}
    order = sorted(rows, key=lambda k: (rows[k].student, rows[k].bytes_per_class, rows[k].accuracy_mean, shown[k]))
    lines = [(rows[key].student, shown[key], *_cells(rows[key])) for key in order]
    machines = sorted({f"{r.machine.cpu}, {r.machine.threads} threads, torch {r.machine.torch}" for _, r in reports})
    commits = sorted({r.machine.commit or "unknown" for _, r in reports})
    precisions = sorted({r.precision for _, r in reports})
    judged = "test images" if split == "test" else "held-out training images"
    told: dict[str, list[str]] = {}
    for name, report in reports:
        for note in report.notes:
            told.setdefault(note, []).append(name)
    notes = [f"- {_several(of)}: {note}." for note, of in told.items()]
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


def _shown(row: str, reports: Sequence[str], text: str) -> str:
    """The name of a row in a table: a set by its report, what its decoder makes by those it was made for."""
    if row == "bundle":
        return f"**{reports[0]}**" + text.removeprefix(row)
    return f"{row} {_several(reports)}" + text.removeprefix(row) if row in ("undistilled", "encoded") else text


def _several(names: Sequence[str]) -> str:
    """Up to four names, or the first and how many more."""
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} others"


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
        with replacing(file) as part:
            part.write_text(after, encoding="utf-8")
    return after != before
