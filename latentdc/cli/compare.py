"""``latentdc compare``: methods side by side on one's own data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say

Plan = Annotated[Path, typer.Argument(metavar="COMPARISON", help="A TOML file: recipes, variants, budget, protocol.")]
Only = Annotated[
    str | None, typer.Option("--only", help="Run these cells alone, such as dm-gan; separated by commas; else all.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Train this many students at once.")]


def compare(
    comparison: Plan,
    *,
    data: options.Data,
    out: options.Out,
    only: Only = None,
    device: options.Device = None,
    workers: Workers = 1,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Condense with several recipes under one budget, judge them alike, and keep a table of all.

    Finished cells are skipped and interrupted ones go on, so that recipes may be added to the file and the command
    given again; given several times at once, the processes share cells and baselines. Exit code 2 if a cell could not
    be run; the others are done nevertheless.

    \b
    Example of a comparison:
      recipes = ["dm", "m3d", "datadam"]
      images_per_class = 1
      seconds = 60
      protocol = "quick"
      splits = ["held-out", "test"]
      [variants]
      pixels = []
      gan = ["decoder=gan", "init=prior", "optim.kind=adam", "optim.lr=0.1"]

    \b
    Example:
      latentdc compare comparison.toml --data fashion-mnist-mini --out runs/comparison
      latentdc compare comparison.toml --data fashion-mnist-mini --out runs/comparison --only dm-pixels,dm-gan
    """
    from latentdc.pipelines.comparison import Comparison
    from latentdc.pipelines.comparison import compare as run

    wanted = Comparison.load(comparison)
    wanted = replace(wanted, only=tuple(options.names(only) or wanted.only))
    out = options.writable(out)
    real = options.opened(data, size=size, classes=classes, limit=limit, download=download, no_mirror=no_mirror)
    found = run(real, wanted, out=out, device=device, workers=workers)
    failed = {name: result for name, result in found.items() if isinstance(result, str)}
    if json:
        emit(
            {
                name: {"failed": each} if isinstance(each, str) else {report.split: report.summary() for report in each}
                for name, each in found.items()
            }
        )
    else:
        page = (out / "README.md").read_text(encoding="utf-8").splitlines()
        shown = [line for line in page if not line.startswith(("<!--", "!["))]  # places of tables and plots
        say("\n".join(shown).rstrip(), *(f"{n}: {why}" for n, why in failed.items()))
    if failed:
        raise typer.Exit(2)
