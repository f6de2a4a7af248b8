"""``latentdc inspect``: what a bundle, a decoder checkpoint or a sketch is, where it came from, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say
from latentdc.errors import InputError

Images = Callable[[int], tuple[Any, Any, Any]]
"""Images, their classes and the names of these, for so many of each class."""


def inspect(
    path: Annotated[str, typer.Argument(metavar="BUNDLE|DECODER|SKETCH", help="A bundle, a decoder or a sketch.")],
    *,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="Write a PNG of its images (bundles and decoders).")
    ] = None,
    per_class: Annotated[int, typer.Option("--per-class", min=1, help="Images of each class in the grid.")] = 10,
    own: options.Own = None,
    json: options.Json = False,
) -> None:
    """Say what something is: kind, spaces, shapes, bytes, origin, how it was made; checksums are verified on the way.

    A decoder is a shipped name, a folder of latentdc's or of diffusers (an autoencoder or a pipeline). --grid shows
    what a bundle's rows decode to, and of a decoder what random latents do.

    \b
    Examples:
      latentdc inspect runs/first --grid first.png
      latentdc inspect fashion-mnist-gan
      latentdc inspect mini.safetensors --json
    """
    from latentdc.bundle import layout
    from latentdc.resources import shipped

    folder, classes = Path(path), options.own_classes(own)
    if folder.is_file():
        facts, lines = _sketch(folder)
        images = None
    elif (folder / layout.MANIFEST).is_file():
        facts, lines, images = _bundle(folder, classes)
    elif any((folder / name).is_file() for name in ("model_index.json", "config.json")) or path in shipped(
        "checkpoints"
    ):
        facts, lines, images = _decoder(path, classes)
    else:
        raise InputError(
            f'"{path}" is no bundle (no {layout.MANIFEST}), no decoder (no config.json or model_index.json) and no '
            f"sketch file. Shipped checkpoints: {', '.join(shipped('checkpoints')) or 'none'}."
        )
    if grid is not None:
        if images is None:
            raise InputError(f'--grid: "{path}" is a sketch, which holds no images. Leave --grid out.')
        _draw(grid, *images(per_class), per_class=per_class)
        facts["grid"] = str(grid)
        lines.append(f"grid written to {grid}")
    if json:
        emit(facts)
    else:
        say(*lines)


def _sketch(path: Path) -> tuple[dict[str, Any], list[str]]:
    from latentdc.cli.explain import shape_text
    from latentdc.sketch import Sketch

    sketch = Sketch.load(path)
    spec, manifest = sketch.spec, sketch.manifest
    counts = sketch.counts[0].tolist()
    network = manifest.pool.get("arch") or manifest.pool["model"]
    facts = {
        "kind": "sketch",
        "data": spec.name,
        "fingerprint": spec.fingerprint,
        "num_pairs": sketch.num_pairs,
        "num_bytes": sketch.num_bytes,
        "shapes": [list(sums.shape) for held in sketch.held.terms for sums in held.sums],
        "counts": counts,
        "see": manifest.see,
        "by": manifest.by,
        "plus": manifest.plus,
        "landmarks": manifest.landmarks,
        "pool": manifest.pool,
        "history": manifest.history,
    }
    lines = [
        f"sketch of {spec.name}: {spec.num_classes} classes of {shape_text(spec.image_shape)} images",
        f"pairs            {sketch.num_pairs} of network ({network}) and augmentation draw",
        *(line for look, held in zip(manifest.looks, sketch.held.terms, strict=True) for line in _term(look, held)),
        f"images per class {min(counts):g}" + (f" to {max(counts):g}" if min(counts) < max(counts) else ""),
        f"bytes            {sketch.num_bytes:,}",
        *(f"made of          {line}" for line in manifest.history),
    ]
    return facts, lines


def _term(look: dict[str, Any], held: Any) -> list[str]:
    """What a sketch holds for one term of an objective."""
    from latentdc.cli.explain import shape_text

    kind, row = ("landmarks", "points x ") if held.masses else ("sums", "" if held.sums[0].ndim == 3 else "rows x ")
    shapes = ", ".join(shape_text(each.shape) for each in held.sums)
    return [
        f"sees             {look['see']['part']} by {look['by']['part']}",
        f"{kind:<17}{shapes} (pairs x classes x {row}numbers)",
    ]


def _bundle(folder: Path, classes: list[type[Any]]) -> tuple[dict[str, Any], list[str], Images]:
    from latentdc.bundle import load_bundle
    from latentdc.cli.explain import decoder_facts, latents_text, shape_text
    from latentdc.evaluate.sets import exported
    from latentdc.latents import decode

    bundle = load_bundle(folder, classes=classes)
    bank, spec = bundle.bank, bundle.spec
    expands = 1 if bundle.formation is None else bundle.formation.expands
    inside = decoder_facts(bundle.decoder)
    public = bundle.decoder_public or "private to this bundle"
    facts = {
        "kind": "bundle",
        "data": spec.name,
        "class_names": list(spec.class_names),
        "rows_per_class": list(bank.counts),
        "images_per_row": expands,
        "latents": {name: list(shape) for name, shape in bank.shapes.items()},
        "stored_as": bank.storage,
        "decoder": inside["class"],
        "decoder_facts": inside,
        "decoder_public": bundle.decoder_public,
        "decoder_reference": bundle.decoder_reference,
        "formation": None if bundle.formation is None else type(bundle.formation).__name__,
        "image_shape": list(spec.image_shape),
        "storage": bundle.storage.to_dict(),
        "provenance": dict(bundle.provenance),
        "hints": dict(bundle.hints),
        "picture": _picture(folder),
    }
    rows = f"{min(bank.counts)}" if len(set(bank.counts)) == 1 else f"{min(bank.counts)} to {max(bank.counts)}"
    made = {name: value for name, value in bundle.provenance.items() if isinstance(value, str | int | float)}
    lines = [
        f"bundle of {spec.name}: {spec.num_classes} classes, {rows} rows each, images per row: {expands}; files intact",
        f"latents               {latents_text(bank.shapes)} as {bank.storage}, {_stored(bank)}",
        f"decoder               {inside['class']}: {inside['what']}; {public}",
        *([f"formation             {facts['formation']}"] if bundle.formation is not None else []),
        f"images                {shape_text(spec.image_shape)}",
        *bundle.storage.lines(),
        *(f"{name:<22}{value}" for name, value in made.items() if "\n" not in str(value)),
        *_start(bundle.provenance.get("start")),
        *_pointed(folder, 22),
    ]

    def images(per_class: int) -> tuple[Any, Any, Any]:
        del per_class  # all rows; the picture takes the first
        shown = exported(decode(bundle.decoder, bank, formation=bundle.formation))
        return shown.x, shown.owner, spec.class_names

    return facts, lines, images


def _start(start: Any) -> list[str]:
    """Where the rows started, and how near decoding it came to the real images where these are known."""
    if not isinstance(start, dict) or "kind" not in start:
        return []
    near = ""
    if "psnr_db" in start:  # None where nothing is lost: the logarithm of no error
        away = "exactly" if start["psnr_db"] is None else f"{start['psnr_db']:.1f} dB from"
        near = f", {away} the real images"
    return [f"{'start':<22}{start['kind']}{near}"]


def _stored(bank: Any) -> str:
    """What one row costs, or that rows cost nothing."""
    payload = bank.payload_bytes()
    if getattr(bank, "endless", False):
        return f"a mean and deviation for each class ({payload['latents']:,} bytes in all), any number of rows"
    return f"{payload['latents'] // bank.num_rows:,} bytes a latent"


def _decoder(path: str, classes: list[type[Any]]) -> tuple[dict[str, Any], list[str], Images]:
    from latentdc.cli.explain import card_lines, decoder_facts, decoder_lines, origin
    from latentdc.decoders.reference import load_decoder, read_card
    from latentdc.resources import shipped

    folder = Path(path) if Path(path).is_dir() else shipped("checkpoints")[path]
    decoder: Any = load_decoder(folder, classes=classes)
    card = read_card(folder)
    inside = decoder_facts(decoder)
    facts = {"kind": "decoder", **inside, "origin": origin(folder, card), "card": card, "picture": _picture(folder)}
    lines = [
        *decoder_lines(inside),
        f"origin       {facts['origin']}",
        *card_lines(card),
        *_pointed(folder, 13),
    ]

    def images(per_class: int) -> tuple[Any, Any, Any]:
        return _drawn(decoder, card, per_class)

    return facts, lines, images


def _drawn(decoder: Any, card: dict[str, Any], per_class: int) -> tuple[Any, Any, Any]:
    """Images of random latents of every class, the classes, and their names."""
    import torch

    from latentdc.passing import samples

    num_classes = int(card.get("num_classes") or decoder.config.get("num_classes") or 1)
    owner = torch.arange(num_classes).repeat_interleave(per_class)
    names = card.get("class_names") or [str(c) for c in range(num_classes)]
    return samples(decoder, owner, seed=0), owner, names


def _picture(folder: Path) -> str | None:
    """A picture that lies in the folder already."""
    return next((str(folder / name) for name in ("grid.png", "samples.png") if (folder / name).is_file()), None)


def _pointed(folder: Path, width: int) -> list[str]:
    found = _picture(folder)
    return [f"{'picture':<{width}}{found or 'none yet: write one with --grid FILE'}"]


def _draw(path: Path, images: Any, owner: Any, class_names: Any, *, per_class: int) -> None:
    from latentdc.report import save_grid

    save_grid(path, images, owner, class_names, per_class=per_class)
