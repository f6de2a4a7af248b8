"""``latentdc condense``: a thin face of ``CondensationPipeline``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say
from latentdc.errors import InputError

if TYPE_CHECKING:
    from latentdc.pipelines.condensation import CondensationOutput, CondensationPipeline


class Resume(StrEnum):
    """What to do with a checkpoint of the same run."""

    auto = "auto"
    never = "never"


Decoder = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        help="pixels, a shipped checkpoint, gan, autoencoder or diffusion (the shipped one that fits), a decoder "
        "folder, or owner/name; --set decoder.space=w and the like read it otherwise.",
    ),
]
Subfolder = Annotated[
    str, typer.Option("--subfolder", help="Where in the decoder's folder or repository it lies, for instance vae.")
]
Images = Annotated[int | None, typer.Option("--images-per-class", help="Stored rows of each class.")]
Bytes = Annotated[
    int | None, typer.Option("--bytes-per-class", help="As many rows as fit, scales and labels included.")
]
Stored = Annotated[
    options.Storage | None,
    typer.Option(
        "--storage", help="How the finished latents are kept: int8 costs hardly any accuracy, int4 halves its bytes."
    ),
]
SketchFile = Annotated[
    Path | None, typer.Option("--sketch", help="A sketch of the real set, made once by latentdc sketch.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimisation steps; 0 keeps the start as it is.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Every random draw follows from this number.")]
Precision = Annotated[
    options.Precision | None,
    typer.Option("--precision", help="Arithmetic of the networks; the recipe's if left out."),
]
Resuming = Annotated[
    Resume, typer.Option("--resume", help="auto goes on from a checkpoint of the same run; never starts over.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the resolved recipe with time, memory and bytes, measured on a few steps (one of the networks that "
        "a recipe trains is trained for it); write nothing.",
    ),
]


def condense(
    *,
    data: options.Data,
    out: options.Out,
    recipe: options.Recipe = "dm-gan",
    decoder: Decoder = None,
    subfolder: Subfolder = "",
    own: options.Own = None,
    images_per_class: Images = None,
    bytes_per_class: Bytes = None,
    storage: Stored = None,
    sketch: SketchFile = None,
    num_pairs: options.NumPairs = None,
    project: options.Project = None,
    steps: Steps = None,
    settings: options.Settings = None,
    seed: Seed = None,
    precision: Precision = None,
    device: options.Device = None,
    compile: options.Compile = False,
    resume: Resuming = Resume.auto,
    dry_run: DryRun = False,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    hold_out: options.HoldOut = False,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Condense a data set into a bundle: latents, decoder, provenance and a picture of what they decode to.

    Interrupted or killed, the same command goes on from OUT.run, bit for bit.

    \b
    Examples:
      latentdc condense --data fashion-mnist-mini --images-per-class 1 --out runs/first
      latentdc condense --data fashion-mnist --bytes-per-class 784 --storage int8 --out runs/784-bytes
      latentdc condense --data my-images/ --size 32 --recipe dm --decoder pixels --out runs/mine
      latentdc condense --data fashion-mnist-mini --decoder gan --set decoder.space=f1 --out runs/f1
      latentdc condense --data fashion-mnist-mini --set optim.lr=0.02 --steps 300 --out runs/slow --dry-run
    """
    _settings(recipe, settings, None if sketch else num_pairs)
    out = options.writable(out)
    numbers = {"images_per_class": images_per_class, "bytes_per_class": bytes_per_class, "steps": steps, "seed": seed}
    changes = {
        **numbers,
        "storage": storage and storage.value,
        "source.num_pairs": num_pairs,
        "objective.see.project": project,
        "precision": precision and precision.value,
        "compile": compile or None,
    }
    pipe = _pipeline(decoder, subfolder, device, own)
    real = options.opened(
        data, size=size, classes=classes, limit=limit, download=download, no_mirror=no_mirror, hold_out=hold_out
    )
    told: dict[str, Any] = {"out": out, "resume": resume is Resume.auto, "sketch": sketch, "settings": settings or ()}
    if dry_run:
        _show(pipe.estimate(real, recipe, overrides=changes, **told), json)
    else:
        _report(pipe(real, recipe, overrides=changes, **told), json)


def _settings(recipe: str, settings: list[str] | None, num_pairs: int | None) -> None:
    """Refuse what is no setting, and pairs of a sketch that nobody takes."""
    from latentdc.recipe import load_recipe

    options.pairs(settings)
    if num_pairs and load_recipe(recipe, settings=settings or ()).source.kind != "sketch":
        raise InputError(
            f'--num-pairs {num_pairs}: recipe "{recipe}" looks at mini-batches and takes no sketch. Leave it out, or '
            "add --set source.kind=sketch."
        )


def _pipeline(decoder: str | None, subfolder: str, device: str | None, own: list[str] | None) -> CondensationPipeline:
    from latentdc.pipelines.condensation import CondensationPipeline

    pipe = CondensationPipeline.from_pretrained(
        decoder, component_classes=options.own_classes(own), subfolder=subfolder
    )
    return pipe if device is None else pipe.to(device)


def _report(made: CondensationOutput, json: bool) -> None:
    storage = made.bundle.storage
    if json:
        emit({"path": str(made.path), "recipe": made.recipe.flat(), "storage": storage.to_dict()})
    else:
        say(f"bundle written to {made.path}, its images to {made.path / 'grid.png'}", *storage.lines())


def _show(facts: dict[str, Any], json: bool) -> None:
    if json:
        emit(facts)
        return
    recipe = "\n".join(f"  {name} = {value}" for name, value in facts["recipe"].items() if value is not None)
    data, training, compiling = facts["data"], facts["network_seconds"], facts["compile_seconds"]
    say(
        "recipe, as it would run:",
        recipe,
        f"data      {data['name']}: {data['num_images']:,} images in {data['num_classes']} classes",
        f"decoder   {facts['decoder']['name']}: latents {_latents(facts['decoder']['latents'])}",
        f"rows      {facts['rows_per_class']} per class, images per class: {facts['images_per_class']}",
        f"bytes     {facts['bytes_per_class']:,} per class; bundle with decoder {facts['bundle_bytes']:,}",
        f"time      {_duration(facts['total_seconds'])}: sketch {_duration(facts['sketch_seconds'])}, "
        + (f"training networks {_duration(training)}, " if training else "")
        + (f"compiling {_duration(compiling)}, " if compiling else "")
        + f"condensing {_duration(facts['condense_seconds'])} ({facts['step_seconds']:.3f} s a step); what the start "
        "takes is not counted",
        f"memory    {facts['peak_memory_bytes'] / 2**20:,.0f} MiB in this process",
        f"disk      {facts['disk_bytes'] / 2**20:,.1f} MiB at most, with sketch and checkpoints",
    )


def _latents(shapes: dict[str, list[int]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
