"""Decoders by name or folder: the checkpoints that ship with latentdc, and anybody's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from latentdc.decoders import DECODERS
from latentdc.decoders.components import check_files, load_component, read_json, sha256_of
from latentdc.decoders.diffusers_folder import INDEX, is_diffusers_folder, load_diffusers_folder
from latentdc.errors import InputError, unknown
from latentdc.portable.pixels import PixelsDecoder
from latentdc.resources import shipped
from latentdc.types import DataSpec

CARD = "card.json"


def read_card(folder: str | Path) -> dict[str, Any]:
    """``card.json`` of a checkpoint folder: what it decodes and how it was made; empty where there is none.

    Raises:
        BundleError: the card is no JSON object.
    """
    path = Path(folder) / CARD
    return read_json(path) if path.is_file() else {}


def seal(folder: str | Path, card: dict[str, Any]) -> None:
    """Write ``card.json``, adding ``sha256`` of every other file of the folder."""
    root = Path(folder)
    files = {path.name: sha256_of(path) for path in sorted(root.iterdir()) if path.is_file() and path.name != CARD}
    (root / CARD).write_text(json.dumps({**card, "sha256": files}, indent=2) + "\n", encoding="utf-8")


def load_decoder(path_or_name: str | Path, spec: DataSpec | None = None) -> ModelMixin:
    """The decoder of a checkpoint folder, or of a shipped checkpoint's name, frozen and in eval mode.

    The folder holds ``config.json`` and safetensors, as ``save_pretrained`` writes them: a decoder's, or an autoencoder
    or a pipeline of diffusers. Where it has a ``card.json``, the sha256 of every file the card lists is checked first.
    No code from the folder runs.

    Args:
        path_or_name: the folder, or the name of a shipped checkpoint.
        spec: the data to decode, for models of diffusers, which make images of many sizes.

    Raises:
        InputError: neither a folder nor a shipped name, or a class that latentdc does not know.
        BundleError: a damaged file, or weights that are missing or unexpected.
    """
    folder = _folder(path_or_name)
    check_files(folder, read_card(folder).get("sha256", {}))
    if is_diffusers_folder(folder):
        return load_diffusers_folder(folder, spec)
    name = str(read_json(folder / "config.json").get("_class_name"))
    classes = {kind.__name__: kind for kind in DECODERS.values()}
    if name not in classes:
        raise InputError(
            f"{folder}: {unknown('decoder class', name, classes)} Load it with its own class and pass the module."
        )
    decoder = load_component(classes[name], folder)
    decoder.requires_grad_(False)
    return decoder


def _folder(path_or_name: str | Path) -> Path:
    folder = Path(path_or_name)
    if (folder / "config.json").is_file() or (folder / INDEX).is_file():
        return folder
    known = shipped("checkpoints")
    if str(path_or_name) in known:
        return known[str(path_or_name)]
    if folder.is_dir():
        raise InputError(
            f"{folder}: has no config.json; give one that `latentdc fit gan` or diffusers wrote, or a shipped name."
        )
    raise InputError(
        f"{unknown('decoder', str(path_or_name), {*known, 'pixels'})} A folder with config.json and safetensors will "
        "do too; `latentdc fit gan` makes one. Change it with --decoder."
    )


def fits(card: dict[str, Any], spec: DataSpec) -> bool:
    """Whether a checkpoint's card says that it decodes such data: same shape, name, and classes in the same order.

    The name fits if it equals ``data`` or is listed in ``also_fits``. A class is a number to the decoder: the same
    classes in another order would decode to each other's images.
    """
    named = card.get("data") == spec.name or spec.name in card.get("also_fits", ())
    shape = tuple(card.get("image_shape", ())) == tuple(spec.image_shape)
    return named and shape and tuple(card.get("class_names", ())) == tuple(spec.class_names)


def default_decoder(spec: DataSpec) -> Path | None:
    """Folder of the shipped checkpoint that fits the data, or None; the first by name where several do."""
    for _, folder in sorted(shipped("checkpoints").items()):
        if (folder / "config.json").is_file() and fits(read_card(folder), spec):
            return folder
    return None


def resolve_decoder(decoder: str | Path | None, spec: DataSpec) -> ModelMixin:
    """The decoder a user asked for, checked against the data.

    Args:
        decoder: ``"pixels"``, a shipped checkpoint's name, a checkpoint folder, an autoencoder's or pipeline's folder
            of diffusers, or None for the shipped one that fits.
        spec: the data to decode.

    Raises:
        InputError: no shipped checkpoint fits, or the given one decodes images of another shape or class count.
        BundleError: the checkpoint is damaged.
    """
    if str(decoder) == "pixels":
        pixels: ModelMixin = PixelsDecoder(list(spec.image_shape), list(spec.mean), list(spec.std)).eval()
        return pixels
    reference = default_decoder(spec) if decoder is None else decoder
    ways = (
        "Take --decoder pixels (no generator), or train one on your data with `latentdc fit gan` and give its folder "
        "with --decoder."
    )
    if reference is None:
        raise InputError(
            f'no shipped decoder fits the data "{spec.name}" with images {_text(spec.image_shape)} and '
            f"{spec.num_classes} classes (shipped: {', '.join(shipped('checkpoints')) or 'none'}). {ways}"
        )
    module = load_decoder(reference, spec)
    classes = module.config.get("num_classes") or spec.num_classes  # None or 0: without classes it fits any number
    if tuple(module.image_shape) != tuple(spec.image_shape) or classes != spec.num_classes:
        raise InputError(
            f'decoder "{reference}" makes images {_text(module.image_shape)} of {classes} classes, the data '
            f'"{spec.name}" has {_text(spec.image_shape)} and {spec.num_classes}. {ways}'
        )
    names = read_card(_folder(reference)).get("class_names")
    if names is not None and sorted(names) == sorted(spec.class_names) and tuple(names) != tuple(spec.class_names):
        raise InputError(
            f'decoder "{reference}" knows the classes of "{spec.name}" in another order: {", ".join(names)}; the data '
            f"has {', '.join(spec.class_names)}. Give --classes in the decoder's order. {ways}"
        )
    return module


def _text(shape: Any) -> str:
    return " x ".join(str(side) for side in shape)
