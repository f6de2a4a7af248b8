"""``latentdc evaluate``: what students learn from a set, beside what they learn from honest baselines."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latentdc.data.sources import Data as Opened
    from latentdc.evaluate import Report
    from latentdc.evaluate.sets import ImageSet
    from latentdc.evaluate.sets import Subject as Judged


class Split(StrEnum):
    """What students are judged on."""

    test = "test"
    held_out = "held-out"


Subject = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="A bundle folder, a decoder (the real images through it), a data set by name, or any folder of labelled "
        "images.",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="dsa-1000 (published), quick (300 epochs), dsa-150k (many images), whole-20 (as many as real), dc-300 (of "
        "DC, not augmented), idc-1000 (of IDC, DREAM and DANCE, with CutMix).",
    ),
]
Students = Annotated[str, typer.Option("--students", help="convnet, resnet18, mlp; separated by commas.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Students per row; baselines are redrawn for each.")]
Baselines = Annotated[
    str,
    typer.Option(
        "--baselines",
        help="random-real, medoids, undistilled, encoded, random-real-total (of the bytes of set and private "
        "decoder); separated by commas; '' for none.",
    ),
]
JudgedOn = Annotated[
    Split, typer.Option("--split", help="held-out judges on a slice of the training images, for choosing.")
]
FullAccuracy = Annotated[
    float | None, typer.Option("--full-accuracy", help="Per cent on all real data; completes DD-Ranking's score.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the students; pays off from some thousands of steps.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Students trained at once; on a CPU each takes one thread.")
]
Runs = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        help="Finished students are remembered here, OUT/runs.jsonl if left out; evaluations that share one file "
        "train equal baselines once.",
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        "--images-per-class",
        min=1,
        help="Only the first images of each class, or as many draws of a set stored as a distribution.",
    ),
]
Width = Annotated[int | None, typer.Option("--width", min=1, help="Narrower students, for a quick check.")]


def evaluate(
    bundle: Subject,
    *,
    data: options.Data,
    protocol: Protocol = "dsa-1000",
    students: Students = "convnet",
    seeds: Seeds = 5,
    baselines: Baselines = "random-real,medoids,undistilled",
    split: JudgedOn = Split.test,
    own: options.Own = None,
    out: options.OptionalOut = None,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = None,
    full_accuracy: FullAccuracy = None,
    compile: Compile = False,
    workers: Workers = 1,
    runs: Runs = None,
    width: Width = None,
    images_per_class: Images = None,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Train students on a bundle and on its baselines under one protocol, and print the table.

    With --out, finished students are remembered: an interrupted evaluation goes on where it stopped.

    \b
    Examples:
      latentdc evaluate runs/first --data fashion-mnist-mini --protocol quick --seeds 3 --out runs/first-report
      latentdc evaluate runs/first --data fashion-mnist --students convnet,resnet18,mlp --json
      latentdc evaluate images/ --data fashion-mnist --baselines random-real
    """
    from latentdc.evaluate import evaluate as measure

    _places(out, runs)
    on = options.place(device)
    real = options.opened(data, size=size, classes=classes, limit=limit, download=download, no_mirror=no_mirror)
    subject = _subject(bundle, real, split, own, size, images_per_class)
    found = measure(
        subject,
        real,
        protocol,
        students=options.names(students) or [],
        seeds=seeds,
        baselines=options.names(baselines) or [],
        split=split.value,
        precision=precision.value,
        compile=compile,
        workers=workers,
        width=width,
        device=on,
        full_accuracy=full_accuracy,
        runs=runs or (out / "runs.jsonl" if out else None),
    )
    _write(found, subject.images, real.train.spec.class_names, out)
    _show(found, json)


def _subject(
    bundle: str, real: Opened, split: Split, own: list[str] | None, size: int | None, images_per_class: int | None
) -> Judged:
    """What is evaluated, checked against the real images it stands for."""
    from latentdc.evaluate.sets import at_size, subject_of
    from latentdc.evaluate.splits import split_data

    part, classes = split_data(real.train, real.test, split.value)[0], options.own_classes(own)
    return subject_of(at_size(bundle, size), part, classes=classes, images_per_class=images_per_class)


def _places(out: Path | None, runs: Path | None) -> None:
    """Refuse places that cannot be written before the first student is trained."""
    for file in (out and out / "report.json", runs):
        if file is not None:
            options.writable(file)


def _show(found: Report, json: bool) -> None:
    from latentdc.report import table

    if json:
        emit(found.summary())
    else:
        say(table(found))


def _write(found: Report, images: ImageSet, class_names: Sequence[str], out: Path | None) -> None:
    """The report, and a picture of the images that the students saw, where they are asked for."""
    from latentdc.report import save_grid, write_report

    if out is None:
        return
    write_report(found, out)
    save_grid(out / "grid.png", images.x, images.owner, class_names)
