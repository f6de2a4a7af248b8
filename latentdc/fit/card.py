"""Writes a decoder folder: weights as diffusers stores them, a card for machines, a README for people, a picture."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from latentdc.portable.gan import GanDecoder
from latentdc.types import DataSpec


def publish(out: Path, decoder: GanDecoder, spec: DataSpec, facts: Mapping[str, Any], *, grid: Tensor) -> None:
    """Write the decoder folder, complete or not at all: it is built beside ``out`` and moved into place.

    Args:
        out: the folder; what was there is replaced.
        decoder: the generator to ship.
        spec: the data it was trained on.
        facts: recipe, seed, seconds, figures: whatever the card should hold beside data, machine and checksums.
        grid: samples ``(rows, columns, c, h, w)`` in [0, 1] for ``samples.png``.
    """
    fresh = out.with_name(f".{out.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    decoder.save_pretrained(fresh)
    config = json.loads((fresh / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # diffusers notes the folder a module came from
    (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in fresh.iterdir():
        path.chmod(0o644)  # safetensors writes files only their owner can read
    save_grid(fresh / "samples.png", grid)
    card: dict[str, Any] = {
        "kind": "gan",
        "data": spec.name,
        "image_shape": list(spec.image_shape),
        "num_classes": spec.num_classes,
        "class_names": list(spec.class_names),
        "fingerprint": spec.fingerprint,
        "parameters": sum(p.numel() for p in decoder.parameters()),
        **facts,
        "machine": machine(),
    }
    (fresh / "README.md").write_text(_readme(out.name, card), encoding="utf-8")
    card["sha256"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(fresh.iterdir()) if path.is_file()
    }
    (fresh / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def save_grid(path: Path, grid: Tensor) -> None:
    """Write images ``(rows, columns, c, h, w)`` in [0, 1] as one PNG without gaps; grey for c = 1, else colour."""
    rows, columns, depth, height, width = grid.shape
    sheet = grid.detach().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 3, 1, 4, 2)
    flat = sheet.reshape(rows * height, columns * width, depth).numpy()
    Image.fromarray(flat[..., 0] if depth == 1 else flat[..., :3]).save(path)


def machine() -> dict[str, str | int]:
    """Processor, threads and torch version: what a stated time depends on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"processor": model, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _readme(name: str, card: Mapping[str, Any]) -> str:
    shape = " x ".join(map(str, card["image_shape"]))
    lines = [
        f"# {name}",
        "",
        f"A class-conditional convolutional generator for {card['data']}: {card['num_classes']} classes, images of "
        f"{shape} in [0, 1], latents of {card['recipe']['z_dim']} standard normal numbers, "
        f"{card['parameters']:,} parameters.",
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
        "images = decoder(decoder.prior(owner, torch.Generator().manual_seed(0)), owner)",
        "```",
        "",
        "![samples, one row a class](samples.png)",
        "",
    ]
    return "\n".join(lines)
