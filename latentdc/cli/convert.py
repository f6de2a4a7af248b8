"""``latentdc convert``: somebody's generator checkpoint → a safetensors decoder folder."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say


def convert(
    *,
    file: Annotated[Path, typer.Argument(help="The checkpoint: a state dictionary, or a StyleGAN2 pickle.")],
    kind: Annotated[
        str,
        typer.Option("--kind", help="stylegan2, biggan-pytorch, studiogan or pytorch-pretrained-biggan."),
    ],
    out: options.Out,
    space: Annotated[str, typer.Option("--space", help="Latent space: z, w, w+, or f2 for what enters layer 2.")] = "z",
    truncation: Annotated[
        float | None, typer.Option("--truncation", help="Psi of StyleGAN2, or the truncation of BigGAN's z.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Convert a generator's checkpoint to a decoder folder for --decoder, running no code of the file.

    State dictionaries are read with weights_only, StyleGAN2 pickles by an unpickler that builds tensors and nothing
    else. A file in an unknown layout is refused with the names found and expected.

    \b
    Examples:
      latentdc convert network-snapshot.pkl --kind stylegan2 --space w --out my-stylegan
      latentdc convert G_ema.pth --kind biggan-pytorch --out my-biggan
    """
    from latentdc.convert.run import convert as run

    folder = run(file, kind, out, space=space, truncation=truncation)
    card = json_.loads((folder / "card.json").read_text(encoding="utf-8"))
    if json:
        emit({"path": str(folder), "card": card})
        return
    latents = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in card["latents"].items())
    say(
        f"decoder written to {folder}: latents {latents} to images {' x '.join(map(str, card['image_shape']))}",
        f"note: {card['layout']}; look at its images first: latentdc inspect {folder}",
    )
