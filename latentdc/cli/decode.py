"""``latentdc decode``: images of a bundle as files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say


class Format(StrEnum):
    """How images are written."""

    folder = "folder"
    parquet = "parquet"
    webdataset = "webdataset"
    pt = "pt"


def decode(
    bundle: options.BundlePath,
    *,
    out: options.Out,
    format: Annotated[
        Format,
        typer.Option("--format", help="Class folders of PNG, one parquet file, a folder of tar shards, or one .pt."),
    ] = Format.folder,
    images_per_class: Annotated[
        int | None,
        typer.Option("--images-per-class", min=1, help="Fewer than stored; any number of a distribution."),
    ] = None,
    classes: options.Classes = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Stored rows decoded at a time.")] = 64,
    own: options.Own = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Decode a bundle into images: class folders with metadata.jsonl, parquet, WebDataset shards, or a tensor file.

    \b
    Examples:
      latentdc decode runs/first --out images
      latentdc decode runs/first --out images.parquet --format parquet --images-per-class 1
      latentdc decode runs/first --out shards --format webdataset
      latentdc decode runs/first --out images.pt --format pt --classes 0,3
    """
    from latentdc.data.sources import class_numbers
    from latentdc.pipelines.synthesis import DatasetSynthesisPipeline

    out = options.writable(out) if format in (Format.folder, Format.webdataset) else options.vacant(out)
    pipe = DatasetSynthesisPipeline.from_pretrained(bundle, component_classes=options.own_classes(own))
    pipe.to(options.place(device))
    write = {
        Format.folder: pipe.to_folder,
        Format.parquet: pipe.to_parquet,
        Format.webdataset: pipe.to_webdataset,
        Format.pt: pipe.to_tensors,
    }[format]
    wanted = options.names(classes)
    chosen = None if wanted is None else class_numbers(wanted, pipe.class_names)
    path = write(out, images_per_class=images_per_class, classes=chosen, batch_size=batch_size)
    rows, keep = pipe.plan(images_per_class, chosen)
    if json:
        emit({"path": str(path), "format": format.value, "num_images": int(keep.sum()), "num_rows": len(rows)})
    else:
        say(f"{int(keep.sum())} images written to {path}")
