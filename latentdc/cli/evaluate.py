"""``latentdc evaluate``: what students learn from a set, beside what they learn from honest baselines."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say

if TYPE_CHECKING:
    from latentdc.types import DataSpec


class Split(StrEnum):
    """What students are judged on."""

    test = "test"
    held_out = "held-out"


def evaluate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle folder, or any folder of labelled images.")],
    *,
    data: options.Data,
    protocol: Annotated[
        str, typer.Option("--protocol", help="dsa-1000 (published), quick (300 epochs), dsa-150k (many images).")
    ] = "dsa-1000",
    students: Annotated[
        str, typer.Option("--students", help="convnet, resnet18, mlp; separated by commas.")
    ] = "convnet",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Students per row; baselines are redrawn for each.")] = 5,
    baselines: Annotated[
        str, typer.Option("--baselines", help="random-real, medoids, undistilled; separated by commas; '' for none.")
    ] = "random-real,medoids,undistilled",
    split: Annotated[
        Split, typer.Option("--split", help="held-out judges on a slice of the training images, for choosing.")
    ] = Split.test,
    out: options.OptionalOut = None,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = "cpu",
    full_accuracy: Annotated[
        float | None, typer.Option("--full-accuracy", help="Per cent on all real data; completes DD-Ranking's score.")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the students; pays off from some thousands of steps.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Students trained at once; on a CPU each takes one thread.")
    ] = 1,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs",
            help="Finished students are remembered here, OUT/runs.jsonl if left out; evaluations that share one file "
            "train equal baselines once.",
        ),
    ] = None,
    width: Annotated[int | None, typer.Option("--width", min=1, help="Narrower students, for a quick check.")] = None,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
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
    from latentdc.data.sources import open_data
    from latentdc.evaluate import evaluate as measure
    from latentdc.networks.compiled import keep_freed_memory
    from latentdc.report import table, write_report

    keep_freed_memory()
    real = open_data(data, size=size, classes=options.names(classes), download=download, limit=limit)
    found = measure(
        bundle,
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
        device=device,
        full_accuracy=full_accuracy,
        runs=runs or (out / "runs.jsonl" if out else None),
    )
    if out:
        write_report(found, out)
        _grid(bundle, real.train.spec, out)
    if json:
        emit(found.summary())
    else:
        say(table(found))


def _grid(bundle: str, spec: DataSpec, out: Path) -> None:
    """A picture of the images that the students saw."""
    from latentdc.evaluate.sets import subject_of
    from latentdc.report import save_grid

    images = subject_of(bundle, spec).images
    save_grid(out / "grid.png", images.x, images.owner, spec.class_names)
