"""``latentdc convert``: somebody's generator checkpoint → a safetensors decoder folder."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say
from latentdc.errors import InputError

if TYPE_CHECKING:
    from latentdc.convert.module import Generator


def convert(
    *,
    file: Annotated[Path, typer.Argument(help="The checkpoint: a state dictionary, or a StyleGAN2 pickle.")],
    kind: Annotated[
        str,
        typer.Option("--kind", help="stylegan2, biggan-pytorch, studiogan, pytorch-pretrained-biggan or module."),
    ],
    out: options.Out,
    space: Annotated[str, typer.Option("--space", help="Latent space: z, w, w+, or f2 for what enters layer 2.")] = "z",
    truncation: Annotated[
        float | None, typer.Option("--truncation", help="Psi of StyleGAN2, or the truncation of BigGAN's z.")
    ] = None,
    module: Annotated[
        str | None, typer.Option("--module", help="Of kind module: package.module:Class, whose code is run.")
    ] = None,
    arguments: Annotated[str, typer.Option("--arguments", help="Named arguments of that class, as JSON.")] = "{}",
    z_shape: Annotated[str | None, typer.Option("--z-shape", help="Shape of its latent: 128, or 128,1,1.")] = None,
    labels: Annotated[
        str, typer.Option("--labels", help="How it takes the class: none, index, one-hot or concatenated.")
    ] = "none",
    num_classes: Annotated[int, typer.Option("--num-classes", min=0, help="Classes it takes; 0 for none.")] = 0,
    output_range: Annotated[str, typer.Option("--output-range", help="Of its images: -1,1 or 0,1.")] = "-1,1",
    json: options.Json = False,
) -> None:
    """Convert a generator's checkpoint to a decoder folder for --decoder, running no code of the file.

    State dictionaries are read with weights_only, StyleGAN2 pickles by an unpickler that builds tensors and nothing
    else. A file in an unknown layout is refused with the names found and expected. --kind module takes the weights of
    any class of yours that can be imported: that class runs, the file still does not.

    \b
    Examples:
      latentdc convert network-snapshot.pkl --kind stylegan2 --space w --out my-stylegan
      latentdc convert G_ema.pth --kind biggan-pytorch --out my-biggan
      latentdc convert G.pth --kind module --module my.models:Generator --z-shape 128,1,1 --out my-gan
      latentdc condense --data my-images/ --decoder my-gan --own my.models:Generator --out runs/mine
    """
    from latentdc.convert.run import convert as run

    form = (arguments, z_shape, labels, num_classes, output_range)
    generator = None if module is None else _generator(module, *form)
    folder = run(file, kind, out, space=space, truncation=truncation, generator=generator)
    card = json_.loads((folder / "card.json").read_text(encoding="utf-8"))
    if json:
        emit({"path": str(folder), "card": card})
        return
    latents = ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in card["latents"].items())
    say(
        f"decoder written to {folder}: latents {latents} to images {' x '.join(map(str, card['image_shape']))}",
        f"note: {card['layout']}; look at its images first: latentdc inspect {folder}",
    )


def _generator(
    module: str, arguments: str, z_shape: str | None, labels: str, num_classes: int, output_range: str
) -> Generator:
    """The options of a class of one's own, taken apart.

    Raises:
        InputError: no latent shape, or a text that cannot be read.
    """
    from latentdc.convert.module import Generator

    if z_shape is None:
        raise InputError(f"--module {module}: give the shape of its latent too, for instance --z-shape 128.")
    try:
        named = json_.loads(arguments)
    except ValueError as error:
        raise InputError(f"--arguments {arguments}: no JSON ({error}); for instance '{{\"width\": 64}}'.") from None
    if not isinstance(named, dict):
        raise InputError(f"--arguments {arguments}: give a JSON object, for instance '{{\"width\": 64}}'.")
    low, high = _range(output_range)
    return Generator(module, options.numbers("--z-shape", z_shape), labels, num_classes, (low, high), named)


def _range(text: str) -> tuple[float, float]:
    ends = options.numbers("--output-range", text)
    if len(ends) != 2:
        raise InputError(f"--output-range {text}: give -1,1 or 0,1.")
    return float(ends[0]), float(ends[1])
