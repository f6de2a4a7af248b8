"""Writes a decoder folder: weights as diffusers stores them, a card for machines, a README for people, a picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from latentdc.decoders.reference import CARD, read_card, seal
from latentdc.errors import BundleError, InputError
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
    fresh = out.with_name(f".{out.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    module: Any = decoder  # diffusers' own classes carry no types
    module.to("cpu").save_pretrained(fresh)
    config = json.loads((fresh / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # diffusers notes the folder a module came from
    (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in fresh.iterdir():
        path.chmod(0o644)  # safetensors writes files only their owner can read
    images, owner = picture
    per_class = int(torch.bincount(owner).max())
    save_grid(fresh / "samples.png", images, owner, spec.class_names, per_class=per_class)
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
    (fresh / "README.md").write_text(_readme(out.name, card), encoding="utf-8")
    seal(fresh, card)
    _keep_others(out, fresh)
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _keep_others(out: Path, fresh: Path) -> None:
    """Copy what somebody put beside the files of the decoder that was there; its own files give way."""
    if not out.exists():
        return
    own = {CARD, *read_card(out).get("sha256", {})}
    for path in out.iterdir():
        if path.name in own or (fresh / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, fresh / path.name, symlinks=True)
        else:
            shutil.copy2(path, fresh / path.name, follow_symlinks=False)


def check_publishable(out: Path) -> None:
    """Check that ``publish`` may put a decoder there: before the training, not after.

    Raises:
        InputError: the place is a file, or a folder that holds anything but a fitted decoder.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder for the decoder (--out).")
    if out.is_dir() and any(out.iterdir()) and not _is_fitted(out):
        raise InputError(
            f"{out}: exists and holds no decoder of latentdc fit; give an empty or new folder (--out), "
            "it is left as it is."
        )


def _is_fitted(folder: Path) -> bool:
    try:
        return read_card(folder).get("kind") in _WHAT
    except BundleError:
        return False


def machine() -> dict[str, str | int]:
    """Processor, threads and torch version: what a stated time depends on."""
    return {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def _readme(name: str, card: Mapping[str, Any]) -> str:
    shape = " x ".join(map(str, card["image_shape"]))
    sizes = " and ".join(" x ".join(map(str, size)) for size in card["latent_shapes"].values())
    lines = [
        f"# {name}",
        "",
        f"{_WHAT[card['kind']].format(**card)} for {card['data']}: {card['num_classes']} classes, images of {shape} in "
        f"[0, 1], latents of {sizes} numbers, {card['parameters']:,} parameters.",
        "",
        f"Trained from scratch on {card['train_images']:,} training images in {card['steps']:,} steps and "
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
