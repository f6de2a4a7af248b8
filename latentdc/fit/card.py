"""Writes a decoder folder: weights as diffusers stores them, a card for machines, a README for people, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from latentdc.decoders.writing import check_place, write_decoder
from latentdc.grid import save_grid
from latentdc.machine import processor
from latentdc.types import DataSpec

_WHAT = {
    "gan": "A class-conditional convolutional generator",
    "autoencoder": "A convolutional autoencoder",
    "diffusion": "A class-conditional diffusion model, decoded in {recipe[num_steps]} deterministic steps,",
}
"""What ``latentdc fit`` makes, in words."""


def publish(
    out: Path,
    decoder: ModelMixin,
    spec: DataSpec,
    facts: Mapping[str, Any],
    *,
    kind: str,
    picture: tuple[Tensor, Tensor],
) -> None:
    """Write the decoder folder, complete or not at all: it is built beside ``out`` and moved into place.

    Args:
        out: the folder; of a fitted decoder that was there the files that its card lists are replaced, and what else
            lies beside them is kept.
        decoder: the decoder to ship.
        spec: the data it was trained on.
        facts: recipe, seed, seconds, figures: whatever the card should hold beside data, machine and checksums.
        kind: a name of ``latentdc.decoders.DECODERS``.
        picture: images ``(n, c, h, w)`` uint8 and the class of each ``(n,)``, for ``samples.png``.

    Raises:
        InputError: the place is taken by something that is no fitted decoder.
    """
    check_publishable(out)  # Again: training took a while, and somebody may have put something there.
    module: Any = decoder  # diffusers' own classes carry no types
    module.to("cpu")
    images, owner = picture
    per_class = int(torch.bincount(owner).max())
    card: dict[str, Any] = {
        "kind": kind,
        "data": spec.name,
        "image_shape": list(spec.image_shape),
        "num_classes": spec.num_classes,
        "class_names": list(spec.class_names),
        "fingerprint": spec.fingerprint,
        "latent_shapes": {name: list(shape) for name, shape in module.latent_shapes.items()},
        "parameters": sum(p.numel() for p in module.parameters()),
        **facts,
        "machine": machine(),
    }

    def draw(folder: Path) -> None:
        save_grid(folder / "samples.png", images, owner, spec.class_names, per_class=per_class)

    write_decoder(out, decoder, card, _readme(out.name, card), draw=draw)


def check_publishable(out: Path) -> None:
    """Check that ``publish`` may put a decoder there: before the training, not after.

    Raises:
        InputError: the place is a file, or a folder that holds anything but a fitted decoder.
    """
    check_place(out, lambda card: card.get("kind") in _WHAT, "decoder of latentdc fit")


def machine() -> dict[str, str | int]:
    """Processor, threads and torch version: what a stated time depends on."""
    return {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def _readme(name: str, card: Mapping[str, Any]) -> str:
    shape = " x ".join(map(str, card["image_shape"]))
    sizes = " and ".join(" x ".join(map(str, size)) for size in card["latent_shapes"].values())
    begun = f"Tuned from {card['recipe']['decoder']}" if "decoder" in card["recipe"] else "Trained from scratch"
    lines = [
        f"# {name}",
        "",
        f"{_WHAT[card['kind']].format(**card)} for {card['data']}: {card['num_classes']} classes, images of {shape} in "
        f"[0, 1], latents of {sizes} numbers, {card['parameters']:,} parameters.",
        "",
        f"{begun} on {card['train_images']:,} training images in {card['steps']:,} steps and "
        f"{card['seconds'] / 60:.1f} minutes ({card['machine']['processor']}, {card['machine']['threads']} threads, "
        f"{card['precision']}), seed {card['seed']}, and averaged. "
        "`card.json` holds the recipe and the sha256 of every file.",
        "",
    ]
    if card["figures"] is not None:
        lines += ["| figure (on held-out training images) | value |", "|---|---|"]
        lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in card["figures"].items()]
        lines.append("")
    lines += [
        "```python",
        "import torch",
        "from latentdc.decoders.reference import load_decoder",
        "",
        f'decoder = load_decoder("{name}")  # or a path to this folder; checks every sha256',
        f"owner = torch.arange({card['num_classes']})",
        "latents = decoder.prior(owner, torch.Generator().manual_seed(0))",
        "images = decoder(latents, owner)",
        "```",
        "",
        "![one row a class](samples.png)",
        "",
    ]
    return "\n".join(lines)
