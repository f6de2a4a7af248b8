"""What people look at: text tables, ``report.json`` files, image grids, plots, and the tables of the README files."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from latentdc.errors import InputError, MissingExtraError
from latentdc.evaluate.records import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "report.json"
_BEGIN = re.compile(r"<!-- reports:begin(?: (?P<pattern>\S+))? -->")
_END = "<!-- reports:end -->"
_PADDING = 2


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


def image_grid(
    images: Tensor, owner: Tensor, class_names: Sequence[str], *, per_class: int = 10, scale: int = 2
) -> Image.Image:
    """A picture with one row per class, the class's name before it and its first images in it.

    Args:
        images: ``(n, c, h, w)`` uint8; images that are neither grey nor RGB are shown as the mean of their channels.
        owner: class of each image ``(n,)``.
        class_names: k names.
        per_class: at most this many images of a class.
        scale: each pixel becomes scale × scale pixels.

    Raises:
        InputError: not uint8, or no images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise InputError(f"image grid of {images.dtype} {tuple(images.shape)}: give uint8 images (n, c, h, w)")
    if images.shape[1] not in (1, 3):
        images = images.float().mean(1, keepdim=True).to(torch.uint8)
    columns = min(per_class, int(torch.bincount(owner, minlength=1).max()))
    _, channels, height, width = images.shape
    cells = torch.full((len(class_names), columns, channels, height, width), 255, dtype=torch.uint8)
    for c in range(len(class_names)):
        mine = images[owner == c][:columns]
        cells[c, : len(mine)] = mine
    large = cells.flatten(0, 1).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(large, nrow=columns, padding=_PADDING, pad_value=255).permute(1, 2, 0).numpy()
    return _labelled(Image.fromarray(grid), class_names, height * scale + _PADDING)


def _labelled(picture: Image.Image, class_names: Sequence[str], row_height: int) -> Image.Image:
    """The picture with class names to the left of its rows."""
    font = ImageFont.load_default(size=max(9, min(16, row_height - 4)))
    names = [name.encode("latin-1", "replace").decode("latin-1") for name in class_names]
    margin = int(max(font.getlength(name) for name in names)) + 10
    canvas = Image.new("RGB", (picture.width + margin, picture.height), "white")
    canvas.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(canvas)
    for c, name in enumerate(names):
        draw.text((margin - 5, c * row_height + row_height / 2), name, fill="black", font=font, anchor="rm")
    return canvas


def save_grid(
    path: str | Path, images: Tensor, owner: Tensor, class_names: Sequence[str], *, per_class: int = 10
) -> Path:
    """Write :func:`image_grid` as PNG, small images enlarged to about 56 pixels, and return its path."""
    scale = max(1, round(56 / max(1, images.shape[-1])))
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images, owner, class_names, per_class=per_class, scale=scale).save(file, format="PNG", optimize=True)
    return file


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
    """Markdown tables of the ``report.json`` files under a folder, one per data set, split and protocol.

    Args:
        reports_dir: searched for ``**/report.json``.
        pattern: only reports whose folder, relative to ``reports_dir``, matches (as in ``fnmatch``).
    """
    root = Path(reports_dir)
    groups: dict[tuple[str, str, str], list[tuple[str, Report]]] = {}
    for file in sorted(root.rglob(FILE)):
        name = file.parent.relative_to(root).as_posix()
        if fnmatch.fnmatch(name, pattern):
            report = read_report(file)
            groups.setdefault((report.data, report.split, str(report.protocol["name"])), []).append((name, report))
    return "\n".join(_group(*key, reports) for key, reports in sorted(groups.items()))


def _group(data: str, split: str, protocol: str, reports: Sequence[tuple[str, Report]]) -> str:
    """One Markdown table; a baseline that several reports share is printed once."""
    lines: dict[tuple[str, ...], Row] = {}
    for name, report in reports:
        for row in report.rows:
            shown = {"bundle": f"**{name}**", "undistilled": f"undistilled {name}"}.get(row.name, row.name)
            lines.setdefault((row.student, shown, *_cells(row)), row)
    order = sorted(lines, key=lambda line: (line[0], lines[line].bytes_per_class, lines[line].accuracy_mean, line))
    machines = sorted({f"{r.machine.cpu}, {r.machine.threads} threads, torch {r.machine.torch}" for _, r in reports})
    commits = sorted({r.machine.commit or "unknown" for _, r in reports})
    precisions = sorted({r.precision for _, r in reports})
    judged = "test images" if split == "test" else "held-out training images"
    return "\n".join(
        [
            f"{data}, protocol `{protocol}`, {judged}; accuracy in per cent, last epoch, mean ± sample deviation.",
            "",
            "| student | set | images/class | bytes/class | accuracy | runs |",
            "|---|---|---:|---:|---:|---:|",
            *("| " + " | ".join(line) + " |" for line in order),
            "",
            f"{'; '.join(machines)}; {', '.join(precisions)}; commit {', '.join(commits)}.",
            "",
        ]
    )


def update_tables(path_md: str | Path, reports_dir: str | Path) -> bool:
    """Write the tables of committed reports between ``<!-- reports:begin -->`` and ``<!-- reports:end -->``.

    The first marker may name a pattern of report folders: ``<!-- reports:begin fashion-mnist/* -->``. Any number of
    such regions is filled.

    Returns:
        Whether the file changed.

    Raises:
        InputError: the file has no region, or one without an end.
    """
    file = Path(path_md)
    before = file.read_text(encoding="utf-8")
    after, rest = "", before
    while match := _BEGIN.search(rest):
        end = rest.find(_END, match.end())
        if end < 0:
            raise InputError(f"{file}: a reports:begin marker has no {_END} after it; add it where the tables end")
        after += rest[: match.end()] + "\n" + tables(reports_dir, match["pattern"] or "*") + _END
        rest = rest[end + len(_END) :]
    if not after:
        raise InputError(f"{file}: no place for tables; add the lines <!-- reports:begin --> and {_END}")
    after += rest
    if after != before:
        file.write_text(after, encoding="utf-8")
    return after != before
