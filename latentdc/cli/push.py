"""``latentdc push``: a bundle, a decoder or a decoded data set to the Hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say


def push(
    source: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|DECODER|DATASET",
            help="A bundle, a decoder folder, or with --dataset what latentdc decode wrote.",
        ),
    ],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if it is not there.")],
    *,
    dataset: Annotated[
        bool, typer.Option("--dataset", help="Upload images as a data set; a bundle is decoded to parquet.")
    ] = False,
    images_per_class: Annotated[
        int | None, typer.Option("--images-per-class", min=1, help="Of a bundle with --dataset: fewer than stored.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to upload to.")] = None,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.")] = None,
    own: options.Own = None,
    json: options.Json = False,
) -> None:
    """Upload to the Hugging Face Hub, with the token of `hf auth login` or HF_TOKEN; checksums are verified first.

    \b
    Examples:
      latentdc push runs/first me/fashion-condensed
      latentdc push my-gan me/my-gan --private
      latentdc push runs/first me/fashion-images --dataset --images-per-class 1
      latentdc push images.parquet me/fashion-images --dataset
    """
    from latentdc.errors import InputError
    from latentdc.pipelines.publish import push_dataset_to_hub, push_to_hub

    if images_per_class is not None and not dataset:
        raise InputError("--images-per-class: a bundle is uploaded whole; it belongs to --dataset.")
    told: dict[str, Any] = {"commit_message": message} if message else {}
    told |= {"private": private or None, "revision": revision, "component_classes": options.own_classes(own)}
    if dataset:
        address = push_dataset_to_hub(source, repository, images_per_class=images_per_class, **told)
    else:
        address = push_to_hub(source, repository, **told)
    if json:
        emit({"commit": address, "repository": repository, "kind": "dataset" if dataset else "model"})
    else:
        say(f"uploaded: {address}")
