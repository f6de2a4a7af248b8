"""Tables, grids, plots, and the README regions that are generated from committed reports."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from latentdc.errors import InputError, MissingExtraError
from latentdc.evaluate.compare import gains
from latentdc.evaluate.records import Machine, Report, Row, Run
from latentdc.grid import image_grid
from latentdc.plots import plot_accuracies, plot_bytes
from latentdc.report import (
    read_report,
    save_grid,
    storage_table,
    table,
    tables,
    update_tables,
    write_report,
)

REPOSITORY = Path(__file__).resolve().parents[1]


def row(
    name: str, accuracies: tuple[float, ...], *, size: float, basis: str = "equal-images", images: float = 1
) -> Row:
    runs = tuple(Run(seed, accuracy, 10, 300, 1.0) for seed, accuracy in enumerate(accuracies))
    return Row(name, basis, "convnet", images, images, size, runs)


@pytest.fixture
def report() -> Report:
    rows = (
        row("bundle", (71.0, 73.0), size=72),
        row("random-real", (47.0, 49.0), size=788),
        row("undistilled", (57.0, 58.0), size=72),
    )
    protocol = {"name": "quick", "epochs": 300}
    where = Machine("a processor", 2, "cpu", "2.14", "abc123")
    return Report(
        source="small",
        source_sha256="ab",
        protocol=protocol,
        data="fashion",
        fingerprint="cd",
        split="test",
        class_names=("shirt", "sandal"),
        seeds=(0, 1),
        precision="fp32",
        rows=rows,
        gains=gains(rows),
        bytes={"latents": 64},
        full_accuracy=None,
        notes=("medoids left out: a reason",),
        machine=where,
        seconds=4.0,
    )


def test_table(report: Report) -> None:
    lines = table(report).splitlines()
    assert lines[0] == "small: fashion, protocol quick, test images, fp32"
    assert lines[2].split() == ["row", "images/class", "bytes/class", "accuracy", "runs"]
    assert lines[4].split() == ["bundle", "1", "72", "72.0", "±", "1.4", "2"]
    assert any(line.startswith("gain over random-real (equal-images, convnet): +0.240, LRS 0.38") for line in lines)
    assert lines[-1] == "medoids left out: a reason"
    assert len({len(line) for line in lines[2:7]}) == 1


def test_gain_with_full_accuracy(report: Report) -> None:
    (alone,) = gains(report.rows)
    (both,) = gains(report.rows, 90.0)
    assert (alone.computed, both.computed) == ("IOR", "0.5 IOR - 0.5 HLR")
    assert both.gain_over_random == alone.gain_over_random == pytest.approx(0.24)
    assert both.lrs < alone.lrs


def test_read_and_write(report: Report, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "deep" / "folder")
    assert read_report(path) == read_report(path.parent) == report
    with pytest.raises(InputError, match="no such report"):
        read_report(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"report\.json"):
        read_report(path)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_image_grid(channels: int, tmp_path: Path) -> None:
    images = torch.zeros(5, channels, 8, 8, dtype=torch.uint8)
    owner = torch.tensor([0, 0, 0, 1, 1])
    picture = image_grid(images, owner, ["shirt", "наряд"], per_class=2, scale=3)
    assert picture.height == 2 * (8 * 3 + 2) + 2
    strip = picture.crop((picture.width - 2 * (8 * 3 + 2) - 2, 0, picture.width, picture.height)).convert("L")
    assert strip.getpixel((10, 10)) == 0
    assert strip.getpixel((0, 0)) == 255
    names = picture.crop((0, 0, picture.width - strip.width, picture.height)).convert("L").getextrema()
    assert names[0] < names[1], "class names are drawn"
    assert save_grid(tmp_path / "out" / "grid.png", images, owner, ["a", "b"]).stat().st_size > 0


def test_image_grid_leaves_missing_images_white() -> None:
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    picture = image_grid(images, torch.tensor([0, 0, 1]), ["a", "b"], scale=1).convert("L")
    assert picture.getpixel((picture.width - 4, picture.height - 4)) == 255
    assert picture.getpixel((picture.width - 4, 4)) == 0
    with pytest.raises(InputError, match="uint8"):
        image_grid(images.float(), torch.tensor([0, 0, 1]), ["a", "b"])


def test_plot(report: Report, tmp_path: Path) -> None:
    assert plot_bytes([report], tmp_path / "plots" / "bytes.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="resnet18"):
        plot_bytes([report], tmp_path / "none.png", student="resnet18")


def test_plot_of_accuracies(report: Report, tmp_path: Path) -> None:
    several = {"one": report, "other": dataclasses.replace(report, rows=report.rows[:1])}
    assert plot_accuracies(several, tmp_path / "plots" / "all.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="resnet18"):
        plot_accuracies(several, tmp_path / "none.png", student="resnet18")


def test_what_a_decoder_makes_is_one_row_for_all_it_was_made_for(report: Report, tmp_path: Path) -> None:
    for name in "abcde":
        write_report(report, tmp_path / name)
    write_report(dataclasses.replace(report, rows=(row("undistilled", (60.0, 61.0), size=72),)), tmp_path / "f")
    text = tables(tmp_path)
    assert text.count("undistilled") == 2
    assert "| undistilled a and 4 others |" in text
    assert "| undistilled f |" in text
    assert text.count("medoids left out: a reason") == 1


def test_plot_names_the_extra(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latentdc\[plot\]'"):
        plot_bytes([report], tmp_path / "bytes.png")


def test_tables_are_idempotent_and_share_baselines(report: Report, tmp_path: Path) -> None:
    longer = row("random-real", (47.0, 49.0, 51.0), size=788)
    other = dataclasses.replace(report, rows=(row("bundle", (80.0, 82.0), size=776), longer, report.rows[2]))
    write_report(report, tmp_path / "reports" / "one")
    write_report(other, tmp_path / "reports" / "two")
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- reports:begin -->\nold\n<!-- reports:end -->\nbetween\n")
    assert update_tables(file, tmp_path / "reports")
    text = file.read_text()
    assert text.startswith("before\n<!-- reports:begin -->\n")
    assert text.endswith("<!-- reports:end -->\nbetween\n")
    assert "old" not in text
    assert "| convnet | **two** | 1 | 776 | 81.0 ± 1.4 | 2 |" in text
    assert text.count("| random-real |") == 1, "the row with most runs stands for both"
    assert "| random-real | 1 | 788 | 49.0 ± 2.0 | 3 |" in text
    assert "commit abc123" in text
    assert not update_tables(file, tmp_path / "reports")
    assert file.read_text() == text


def test_only_what_is_the_same_is_merged(report: Report, tmp_path: Path) -> None:
    """Baselines of other images are a table of their own, those of another precision rows of their own."""
    write_report(report, tmp_path / "one")
    write_report(dataclasses.replace(report, fingerprint="other"), tmp_path / "two")
    made = tables(tmp_path)
    assert made.count("| student |") == made.count("| random-real |") == 2
    half = dataclasses.replace(report, precision="bf16", notes=("students of width 4",))
    write_report(half, tmp_path / "two")
    write_report(half, tmp_path / "three")  # bf16 is now the usual one
    made = tables(tmp_path)
    assert made.count("| student |") == 1
    assert "| **one** (fp32) |" in made
    assert "| random-real (fp32) |" in made
    assert "- three, two: students of width 4." in made
    size = {"latents": 7680}
    for name, source, more in (("one", "dm", 0), ("two", "dm", 1), ("three", "dm", 1)):
        write_report(dataclasses.replace(report, source=source, bytes={**size, "labels": more}), tmp_path / name)
    assert [line.split(" | ")[0] for line in storage_table(tmp_path).splitlines()[2:]] == ["| dm (one)", "| dm (three)"]


def test_regions_choose_reports(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "reports" / "one")
    write_report(report, tmp_path / "reports" / "two")
    file = tmp_path / "README.md"
    file.write_text("<!-- reports:begin tw* -->\n<!-- reports:end -->\n<!-- reports:begin -->\n<!-- reports:end -->\n")
    update_tables(file, tmp_path / "reports")
    first, second = file.read_text().split("<!-- reports:begin -->")
    assert "**two**" in first
    assert "**one**" not in first
    assert "**one**" in second


def test_storage_adds_up_line_by_line(report: Report, tmp_path: Path) -> None:
    size = {"latents": 7680, "scales": 40, "labels": 40, "shared": 500, "private_decoder": 1000, "public_decoder": 0}
    for name, source in (
        ("a/small", "small"),
        ("a/small-again", "small"),
        ("a/folder", "folder"),
        ("b/other", "other"),
    ):
        costs = {} if source == "folder" else {**size, "pixels_uint8": 376_320}
        write_report(dataclasses.replace(report, source=source, bytes=costs), tmp_path / "reports" / name)
    file = tmp_path / "README.md"
    file.write_text("<!-- storage:begin a/* -->\n<!-- storage:end -->\n")
    assert update_tables(file, tmp_path / "reports")
    *_, line, end = file.read_text().splitlines()
    assert line == "| small | 7,680 | 8,260 | 9,260 | 9,260 | 376,320 |", (
        "one line a bundle, and none for image folders"
    )
    assert end == "<!-- storage:end -->"
    assert not update_tables(file, tmp_path / "reports")


@pytest.mark.parametrize("text", ["nothing\n", "<!-- reports:begin -->\n", "<!-- storage:begin -->\n"])
def test_regions_must_exist(text: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(InputError, match="storage:end" if "storage" in text else "reports:end"):
        update_tables(file, tmp_path)


KEPT = sorted(page.parent.relative_to(REPOSITORY).as_posix() for page in REPOSITORY.glob("reports/*/README.md"))
"""Comparisons whose reports are committed, each with a page of its own."""


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *((name, "reports") for name in ("README.md", "pipelines/README.md", "checkpoints/README.md")),
        *((f"{folder}/README.md", folder) for folder in KEPT),
    ],
)
def test_committed_tables_are_up_to_date(name: str, of: str, tmp_path: Path) -> None:
    """Regenerate with ``python -c "from latentdc.report import update_tables; update_tables(NAME, OF)"``."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    if "<!-- reports:begin" not in text:
        assert not tables(REPOSITORY / of), f"{name} has no reports region although reports are committed"
        return
    copy = tmp_path / "README.md"
    copy.write_text(text, encoding="utf-8")
    assert not update_tables(copy, REPOSITORY / of), f"the tables of {name} are older than {of}"
