"""What a decoder is, in facts and in lines: spaces, shapes, bytes a latent, where it came from and how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

_WHAT = {
    "pixels": "pixels: latents are the standardised images themselves",
    "gan": "a class-conditional generator (GAN)",
    "stylegan2": "a StyleGAN2 generator",
    "biggan": "a BigGAN generator",
    "module": "a generator of somebody's own",
    "memory": "a linear memory of bases, stored with the set",
    "frequency": "frequencies that a mask keeps, stored with the set",
}


_SAID = (
    *("kind", "image_shape", "num_classes", "latent_shapes", "latents", "parameters", "space", "generator"),
    *("source", "layout", "train_images", "steps", "seconds", "seed", "sha256"),
)
"""Entries of a card that the lines about the decoder and where it came from have said, and checksums."""


def shape_text(sides: Sequence[int]) -> str:
    """``1 x 28 x 28``."""
    return " x ".join(str(side) for side in sides)


def latents_text(shapes: Mapping[str, Sequence[int]]) -> str:
    """Latent keys with their shapes, for instance ``f 64 x 7 x 7, w 3 x 16``."""
    return ", ".join(f"{name} {shape_text(shape)}" for name, shape in shapes.items())


def decoder_facts(decoder: Any) -> dict[str, Any]:
    """What a loaded decoder is; JSON values.

    Returns:
        ``class``, ``model`` (its name in the table of decoders, None for somebody's own), ``what`` (a line),
        ``image_shape``, ``num_classes`` (0 without), ``num_weights`` (of parameters), ``num_buffers`` (numbers kept
        beside them), ``weight_bytes`` (of both), ``latents``, ``spaces`` (for each ``latents``, ``numbers`` and
        ``bytes`` of one by storage; ``current`` marks the one it is read in), ``settings`` (what differs from its
        class's defaults), ``steps``.
    """
    from latentdc.decoders import DECODERS
    from latentdc.decoders.settings import current_settings

    model = next((name for name, kind in DECODERS.items() if kind is type(decoder)), None)
    config = getattr(decoder, "config", {})
    kept, learnt = decoder.state_dict(), dict(decoder.named_parameters(remove_duplicate=False))
    return {
        "class": type(decoder).__name__,
        "model": model,
        "what": what_text(decoder, model),
        "image_shape": list(decoder.image_shape),
        "num_classes": int(config.get("num_classes") or 0),
        "num_weights": sum(value.numel() for name, value in kept.items() if name in learnt),
        "num_buffers": sum(value.numel() for name, value in kept.items() if name not in learnt),
        "weight_bytes": sum(value.numel() * value.element_size() for value in kept.values()),
        "latents": {name: list(shape) for name, shape in decoder.latent_shapes.items()},
        "spaces": _spaces(decoder),
        "settings": {name: value for name, value in current_settings(decoder).items() if name != "plan"},
        "steps": len(config["plan"]) - decoder.first if "plan" in config else None,
    }


def what_text(decoder: Any, model: str | None) -> str:
    """A decoder in a line."""
    config = getattr(decoder, "config", {})
    if model == "autoencoder":
        return f"the decoder half of an autoencoder ({config['model_class']}); without classes"
    if model == "diffusion":
        inside = config["autoencoder_class"]
        where = f"in the latents of an {inside}" if inside else "in pixels"
        plan = config["plan"]
        run = plan[decoder.first :]
        steps = f"{len(run)}" if len(run) == len(plan) else f"the last {len(run)} of {len(plan)}"
        return (
            f"a diffusion model ({config['denoiser_class']}, {config['prediction']}) {where}: {steps} "
            f"deterministic steps from time {run[0][0]:g} to {run[-1][0]:g}, guidance {config['guidance']:g}"
        )
    named = f" ({config['generator']})" if model == "module" else ""
    return _WHAT.get(str(model), "a decoder of somebody's own") + named


def decoder_lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts of ``decoder_facts`` for a reader."""
    classes = f"{facts['num_classes']} classes" if facts["num_classes"] else "any class"
    buffers = f", and {facts['num_buffers']:,} numbers in buffers" if facts["num_buffers"] else ""
    lines = [
        f"decoder {facts['class']}: {facts['what']}",
        f"images       {shape_text(facts['image_shape'])}, {classes}",
        f"weights      {facts['num_weights']:,}{buffers} ({facts['weight_bytes']:,} bytes as loaded)",
    ]
    for name, space in facts["spaces"].items():
        sizes = ", ".join(f"{size:,} in {storage}" for storage, size in space["bytes"].items())
        mark = " (read in this)" if space["current"] and len(facts["spaces"]) > 1 else ""
        lines.append(f"space {name:<6} {latents_text(space['latents'])}: bytes a latent {sizes}{mark}")
    if facts["settings"]:
        lines.append("settings     " + ", ".join(f"{name} = {value}" for name, value in facts["settings"].items()))
    return lines


def origin(folder: Path, card: Mapping[str, Any]) -> str:
    """Where a decoder's folder came from, as far as the folder says."""
    from latentdc.decoders.components import read_json
    from latentdc.decoders.diffusers_folder import INDEX, is_diffusers_folder
    from latentdc.resources import shipped

    names = [name for name, path in shipped("checkpoints").items() if path.resolve() == folder.resolve()]
    ship = f"shipped with latentdc as {names[0]}; " if names else ""
    if "source" in card:
        source = card["source"]
        layout = f"layout {card.get('kind')}, {card.get('layout')}"
        return f"{ship}converted from {source['file']} (sha256 {source['sha256'][:12]}…; {layout})"
    if "seed" in card:
        spent = f"{card.get('steps')} steps, seed {card['seed']}, {card.get('seconds', 0) / 60:.0f} min"
        return f"{ship}trained on {card.get('train_images')} images of {card.get('data')} by latentdc fit: {spent}"
    if is_diffusers_folder(folder):
        file = folder / INDEX if (folder / INDEX).is_file() else folder / "config.json"
        return f"{ship}a folder of diffusers, a {read_json(file).get('_class_name')}"
    return f"{ship}not told by the folder"


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """What a decoder's card says beyond ``decoder_lines`` and ``origin``, for a reader."""
    return [f"{name.replace('_', ' '):<12} {_words(value)}" for name, value in card.items() if name not in _SAID]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_words(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        commas = any(isinstance(each, str) for each in value)
        return (", " if commas else " ").join(map(str, value)) or "none"
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _spaces(decoder: Any) -> dict[str, dict[str, Any]]:
    """Every latent space of a GAN; of a diffusion model with and without a learned condition; of others the one."""
    from latentdc.decoders.settings import SETTINGS, configured
    from latentdc.errors import InputError

    names = SETTINGS.get(type(decoder), ())
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, settings: dict[str, Any]) -> bool:
        try:
            found[name] = _space(configured(decoder, settings), decoder)
        except InputError:  # no such space
            return False
        return True

    if "space" in names:
        for space in ("z", "w", "w+"):
            add(space, {"space": space})
        next(n for n in count() if not add(f"f{n}", {"space": f"f{n}"}))
    elif "learn_condition" in names:
        add("z", {"learn_condition": False})
        add("z, c", {"learn_condition": True})
    else:
        found[", ".join(decoder.latent_shapes)] = _space(decoder, decoder)
    return found


def _space(decoder: Any, read: Any) -> dict[str, Any]:
    from latentdc.portable.bank import STORAGES, row_bytes

    numbers = sum(math.prod(shape) for shape in decoder.latent_shapes.values())
    space, learned = getattr(decoder, "space", None), getattr(decoder, "learn_condition", None)
    return {
        "latents": {name: list(shape) for name, shape in decoder.latent_shapes.items()},
        "numbers": numbers,
        "bytes": {storage: row_bytes(storage, decoder.latent_shapes) for storage in STORAGES},
        "current": (space, learned) == (getattr(read, "space", None), getattr(read, "learn_condition", None)),
    }
