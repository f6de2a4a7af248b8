"""``latentdc inspect``: what a bundle, a decoder checkpoint or a sketch is, where it came from, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say
from latentdc.errors import InputError


def inspect(
    path: Annotated[str, typer.Argument(metavar="BUNDLE|CHECKPOINT|SKETCH", help="A bundle, a decoder or a sketch.")],
    *,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="Write a PNG of its images (bundles and decoders).")
    ] = None,
    per_class: Annotated[int, typer.Option("--per-class", min=1, help="Images of each class in the grid.")] = 10,
    json: options.Json = False,
) -> None:
    """Say what something is: kind, shapes, bytes in four lines, provenance; checksums are verified on the way.

    \b
    Examples:
      latentdc inspect runs/first --grid first.png
      latentdc inspect fashion-mnist-gan
      latentdc inspect mini.safetensors --json
    """
    from latentdc.resources import shipped

    folder = Path(path)
    if folder.is_file():
        facts, lines = _sketch(folder)
        images = None
    elif (folder / "model_index.json").is_file():
        facts, lines, images = _bundle(folder)
    elif (folder / "config.json").is_file() or path in shipped("checkpoints"):
        facts, lines, images = _decoder(path, per_class)
    else:
        raise InputError(
            f'"{path}" is no bundle (no model_index.json), no decoder checkpoint (no config.json) and no sketch file. '
            f"Shipped checkpoints: {', '.join(shipped('checkpoints')) or 'none'}."
        )
    if grid is not None:
        if images is None:
            raise InputError(f'--grid: "{path}" is a sketch, which holds no images. Leave --grid out.')
        _draw(grid, *images, per_class=per_class)
        facts["grid"] = str(grid)
    if json:
        emit(facts)
    else:
        say(*lines)


def _sketch(path: Path) -> tuple[dict[str, Any], list[str]]:
    from latentdc.sketch import Sketch

    sketch = Sketch.load(path)
    spec, manifest = sketch.spec, sketch.manifest
    counts = sketch.counts[0].tolist()
    facts = {
        "kind": "sketch",
        "data": spec.name,
        "fingerprint": spec.fingerprint,
        "num_pairs": sketch.num_pairs,
        "num_bytes": sketch.num_bytes,
        "shapes": [list(sums.shape) for sums in sketch.sums],
        "counts": counts,
        "see": manifest.see,
        "by": manifest.by,
        "pool": manifest.pool,
        "history": manifest.history,
    }
    lines = [
        f"sketch of {spec.name}: {spec.num_classes} classes of {_shape(spec.image_shape)} images",
        f"pairs            {sketch.num_pairs} of network ({manifest.pool['arch']}) and augmentation draw",
        f"sees             {manifest.see['part']} by {manifest.by['part']}",
        f"sums             {', '.join(_shape(sums.shape) for sums in sketch.sums)} (pairs x classes x numbers)",
        f"images per class {min(counts):g} to {max(counts):g}",
        f"bytes            {sketch.num_bytes:,}",
        *(f"made of          {line}" for line in manifest.history),
    ]
    return facts, lines


def _bundle(folder: Path) -> tuple[dict[str, Any], list[str], Any]:
    from latentdc.bundle import load_bundle
    from latentdc.evaluate.sets import exported
    from latentdc.latents import decode

    bundle = load_bundle(folder)
    bank, spec = bundle.bank, bundle.spec
    expands = 1 if bundle.formation is None else bundle.formation.expands
    facts = {
        "kind": "bundle",
        "data": spec.name,
        "class_names": list(spec.class_names),
        "rows_per_class": list(bank.counts),
        "images_per_row": expands,
        "latents": {name: list(shape) for name, shape in bank.shapes.items()},
        "stored_as": bank.storage,
        "decoder": type(bundle.decoder).__name__,
        "image_shape": list(spec.image_shape),
        "storage": bundle.storage.to_dict(),
        "provenance": dict(bundle.provenance),
        "hints": dict(bundle.hints),
    }
    latents = ", ".join(f"{name} {_shape(shape)}" for name, shape in bank.shapes.items())
    rows = f"{min(bank.counts)}" if len(set(bank.counts)) == 1 else f"{min(bank.counts)} to {max(bank.counts)}"
    lines = [
        f"bundle of {spec.name}: {spec.num_classes} classes, {rows} rows each, {expands} images per row; files intact",
        f"latents               {latents} as {bank.storage}, decoded by {type(bundle.decoder).__name__}",
        f"images                {_shape(spec.image_shape)}",
        *bundle.storage.lines(),
        *(f"{name:<22}{value}" for name, value in bundle.provenance.items() if isinstance(value, str | int | float)),
    ]
    images = exported(decode(bundle.decoder, bank, formation=bundle.formation))
    return facts, lines, (images.x, images.owner, spec.class_names)


def _decoder(path: str, per_class: int) -> tuple[dict[str, Any], list[str], Any]:
    import torch

    from latentdc.decoders.reference import load_decoder, read_card
    from latentdc.resources import shipped
    from latentdc.seeding import stream

    decoder: Any = load_decoder(path)
    card = read_card(shipped("checkpoints").get(path, Path(path)))
    num_weights = sum(parameter.numel() for parameter in decoder.parameters())
    facts = {"kind": "decoder", "class": type(decoder).__name__, "num_weights": num_weights, "card": card}
    facts["latents"] = {name: list(shape) for name, shape in decoder.latent_shapes.items()}
    facts["image_shape"] = list(decoder.image_shape)
    latents = ", ".join(f"{name} {_shape(shape)}" for name, shape in decoder.latent_shapes.items())
    known = {name: value for name, value in card.items() if name != "sha256"}
    lines = [
        f"decoder {type(decoder).__name__}: latents {latents} to images {_shape(decoder.image_shape)}",
        f"weights      {num_weights:,} ({4 * num_weights:,} bytes in fp32)",
        *(f"{name:<12} {value}" for name, value in known.items()),
    ]
    num_classes = int(card.get("num_classes") or 1)
    owner = torch.arange(num_classes).repeat_interleave(per_class)
    with torch.no_grad():
        x = decoder(decoder.prior(owner, stream(0, "inspect")), owner).clamp(0, 1)
    names = card.get("class_names") or [str(c) for c in range(num_classes)]
    return facts, lines, ((x * 255).round().to(torch.uint8), owner, names)


def _draw(path: Path, images: Any, owner: Any, class_names: Any, *, per_class: int) -> None:
    from latentdc.report import save_grid

    save_grid(path, images, owner, class_names, per_class=per_class)


def _shape(sides: Any) -> str:
    return " x ".join(str(side) for side in sides)
