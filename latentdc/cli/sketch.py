"""``latentdc sketch``: the whole real set, seen once, as one file that can be merged and subtracted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, group, say
from latentdc.errors import InputError

if TYPE_CHECKING:
    from latentdc.data.store import ClassStore

app = group(
    """Sum what networks see of the whole real set, once, into one file to condense from.

    A sketch serves every budget, seed and decoder, but one objective: the terms of its recipe. It is resumable.
    Gradients take a number for each weight, class and pair; objective.see.project shrinks them. Discrepancies that
    compare points are given weighted ones, source.landmarks of each class.

    \b
    Examples:
      latentdc sketch --data fashion-mnist-mini --num-pairs 60 --out mini.safetensors
      latentdc condense --data fashion-mnist-mini --sketch mini.safetensors --images-per-class 10 --out runs/ten
      latentdc sketch --data fashion-mnist-mini --set objective.see=gradients --project 64 --out g.safetensors
      latentdc sketch --data fashion-mnist-mini --set objective.by=energy --set source.landmarks=50 --out l.safetensors
      latentdc sketch --data hospital-a/ --size 32 --out a.safetensors
      latentdc sketch --data hospital-b/ --size 32 --like a.safetensors --out b.safetensors
      latentdc sketch merge a.safetensors b.safetensors --out both.safetensors
      latentdc sketch subtract both.safetensors b.safetensors --out a-again.safetensors
    """,
    alone=True,
)
Like = Annotated[
    Path | None,
    typer.Option(
        "--like",
        help="Take mean, std and kernel lengths from this sketch, so that the two can be merged or subtracted.",
    ),
]
Path_ = Annotated[Path, typer.Argument(help="A sketch file.")]


@app.callback()
def make(
    context: typer.Context,
    *,
    data: Annotated[str | None, typer.Option("--data", help="As for latentdc condense.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The safetensors file to write.")] = None,
    recipe: options.Recipe = "dm-gan",
    num_pairs: options.NumPairs = None,
    images_per_pair: Annotated[
        int | None, typer.Option("--images-per-pair", min=1, help="A random subset per pair instead of all images.")
    ] = None,
    project: options.Project = None,
    settings: options.Settings = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of networks, augmentation and walk.")] = None,
    precision: Annotated[options.Precision | None, typer.Option("--precision", help="Of the networks.")] = None,
    like: Like = None,
    compile: options.Compile = False,
    device: options.Device = None,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    hold_out: options.HoldOut = False,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Take a sketch, unless a subcommand was named."""
    if context.invoked_subcommand is not None:
        return
    if data is None or out is None:
        raise InputError("latentdc sketch needs --data and --out (or a subcommand: merge, subtract); see --help.")
    options.pairs(settings)
    out = options.vacant(out)
    changes = {
        "source.kind": "sketch",
        "source.num_pairs": num_pairs,
        "source.images_per_pair": images_per_pair,
        "objective.see.project": project,
        "compile": compile or None,
        "seed": seed,
        "precision": precision and precision.value,
        "decoder": "pixels",
    }
    real = options.opened(
        data, size=size, classes=classes, limit=limit, download=download, no_mirror=no_mirror, hold_out=hold_out
    )
    _take(real.train, recipe, settings or [], changes, like=like, out=out, device=options.place(device))
    _report(out, json)


def _take(
    store: ClassStore,
    recipe: str,
    settings: list[str],
    changes: dict[str, Any],
    *,
    like: Path | None,
    out: Path,
    device: str,
) -> None:
    """Write the sketch that a recipe would take of some images, under the statistics of another one if given."""
    from latentdc.pipelines.condensation import CondensationPipeline
    from latentdc.recipe import make_source, size_of_sketch
    from latentdc.sketch import Sketch

    other = None if like is None else Sketch.load(like)
    if other is not None:
        store = store.with_statistics(other.spec.mean, other.spec.std)
    store, built = CondensationPipeline().prepare(store, recipe, settings=settings, overrides=changes)
    typer.echo(f"the sketch will take {size_of_sketch(built, store):,} bytes", err=True)
    make_source(built, store, like=other, out=out, device=device)


@app.command()
def merge(first: Path_, second: Path_, *, out: options.Out, json: options.Json = False) -> None:
    """Add two sketches of disjoint sets, taken alike (see latentdc sketch --like): the sketch of their union.

    \b
    Example:
      latentdc sketch merge hospital-a.safetensors hospital-b.safetensors --out both.safetensors
    """
    from latentdc.sketch import Sketch

    out = options.vacant(out)
    Sketch.load(first).merge(Sketch.load(second)).save(out)
    _report(out, json)


@app.command()
def subtract(whole: Path_, part: Path_, *, out: options.Out, json: options.Json = False) -> None:
    """Take a part out of a sketch: what remains is the sketch of the rest, as if the part had never been seen.

    \b
    Example:
      latentdc sketch subtract both.safetensors hospital-b.safetensors --out a.safetensors
    """
    from latentdc.sketch import Sketch

    out = options.vacant(out)
    Sketch.load(whole).subtract(Sketch.load(part)).save(out)
    _report(out, json)


def _report(out: Path, json: bool) -> None:
    from latentdc.sketch import Sketch

    made = Sketch.load(out)
    facts = {
        "path": str(out),
        "num_pairs": made.num_pairs,
        "num_bytes": made.num_bytes,
        "file_bytes": out.stat().st_size,
        "images": made.counts[0].tolist(),
    }
    if json:
        emit(facts)
    else:
        say(f"sketch of {made.num_pairs} pairs written to {out}: {made.num_bytes:,} bytes")
