"""``latentdc fit``: train a decoder of your own data to condense through."""

from __future__ import annotations

import json as json_
from typing import Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, group, say

app = group(
    """Train a decoder on your own images, to condense through with --decoder.

    \b
    Example:
      latentdc fit gan --data my-images/ --size 32 --minutes 30 --out my-gan
      latentdc condense --data my-images/ --size 32 --decoder my-gan --images-per-class 10 --out runs/mine
    """
)


@app.callback()
def fit() -> None:
    """Train a decoder."""


@app.command()
def gan(
    *,
    data: options.Data,
    out: options.Out,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Updates in all; or give --minutes.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Training time in all; or give --steps.")] = None,
    z_dim: Annotated[int, typer.Option("--z-dim", min=1, help="Numbers per latent: the rate of the code.")] = 16,
    channels: Annotated[str, typer.Option("--channels", help="Feature maps of the generator, coarse to fine.")] = (
        "128,64,24"
    ),
    mapping: Annotated[int, typer.Option("--mapping", min=0, help="Layers of a network that opens w and w+.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Images per update.")] = 64,
    seed: options.Seed = 0,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = None,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Go on from the checkpoint of --out.")] = True,
    also_fits: Annotated[
        str | None, typer.Option("--also-fits", help="Other data sets, by name, that it may be a default for.")
    ] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Measure coverage and accuracy last.")] = True,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Train a class-conditional generator: hinge game, projection critic, averaged weights, sample grids on the way.

    Writes a decoder folder (config, safetensors, card, samples) and keeps its checkpoint in OUT.training beside it.

    \b
    Examples:
      latentdc fit gan --data fashion-mnist-mini --minutes 20 --out my-gan
      latentdc fit gan --data my-images/ --size 32 --steps 20000 --z-dim 32 --out my-gan
    """
    from latentdc.fit.gan import GanRecipe
    from latentdc.fit.run import fit_gan

    out, levels = options.writable(out), options.numbers("--channels", channels)
    real = options.opened(data, size=size, classes=classes, limit=limit, download=download, no_mirror=no_mirror)
    folder = fit_gan(
        real.train,
        GanRecipe(z_dim=z_dim, channels=levels, mapping=mapping, batch_size=batch_size),
        out=out,
        steps=steps,
        minutes=minutes,
        seed=seed,
        device=options.place(device),
        precision=precision.value,
        resume=resume,
        figures=figures,
        also_fits=options.names(also_fits) or (),
    )
    if json:
        emit({"path": str(folder), "card": json_.loads((folder / "card.json").read_text(encoding="utf-8"))})
    else:
        say(f"decoder written to {folder}; use it with: latentdc condense --data {data} --decoder {folder} …")
