"""Decoders by name or folder: the checkpoints that ship with latentdc, and anybody's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from latentdc.decoders import BASES, DECODERS
from latentdc.decoders.components import check_files, load_component, read_json, sha256_of
from latentdc.decoders.diffusers_folder import (
    CONFIG,
    INDEX,
    diffusers_class,
    is_diffusers_folder,
    load_diffusers_folder,
)
from latentdc.decoders.settings import STEPS, check_settings, configured, known_settings
from latentdc.errors import InputError, unknown
from latentdc.portable.pixels import PixelsDecoder
from latentdc.resources import shipped
from latentdc.types import DataSpec

CARD = "card.json"
DEFAULT = "default"
KINDS = ("gan", "diffusion", "autoencoder")
"""Kinds of shipped checkpoints, by ``kind`` of their cards; which one is the default follows this order, up to
``_NO_PRIOR``."""
_NO_PRIOR = "autoencoder"
"""Draws from its prior are noise, where many a recipe starts: never taken unless it is asked for."""
_WAYS = (
    "Take --decoder pixels (no generator), or train one on your data with `latentdc fit gan` and give its folder with "
    "--decoder."
)


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


def load_decoder(
    path_or_name: str | Path,
    spec: DataSpec | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    classes: Sequence[type[nn.Module]] = (),
) -> ModelMixin:
    """The decoder of a checkpoint folder, or of a shipped checkpoint's name, frozen and in eval mode.

    The folder holds ``config.json`` and safetensors, as ``save_pretrained`` writes them: a decoder's, or an autoencoder
    or a pipeline of diffusers. Where it has a ``card.json``, the sha256 of every file the card lists is checked first.
    No code from the folder runs, and none that it names unless the class is given.

    Args:
        path_or_name: the folder, or the name of a shipped checkpoint.
        spec: the data to decode, for models of diffusers, which make images of many sizes.
        settings: what to read otherwise than the folder says, such as ``{"space": "w"}``; see
            ``latentdc.decoders.settings.SETTINGS``.
        classes: decoder classes that latentdc does not have, and generators that a decoder of kind ``module`` is made
            of: their code runs.

    Raises:
        InputError: neither a folder nor a shipped name, a class that latentdc does not know, or a setting that the
            decoder does not have.
        BundleError: a damaged file, or weights that are missing or unexpected.
    """
    folder, given = _folder(path_or_name), dict(settings or {})
    check_files(folder, read_card(folder).get("sha256", {}))
    if is_diffusers_folder(folder):
        check_settings(diffusers_class(folder), given, "model of diffusers")
        own = {name: given.pop(name) for name in (STEPS, "class_ids") if name in given}
        return cast(ModelMixin, configured(load_diffusers_folder(folder, spec, **own), given))
    name = str(read_json(folder / CONFIG).get("_class_name"))
    known = {kind.__name__: kind for kind in (*DECODERS.values(), *classes) if issubclass(kind, ModelMixin)}
    if name not in known:
        raise InputError(
            f"{folder}: {unknown('decoder class', name, known)} Where you trust its code, give the class: --own "
            "package.module:Class, or load_decoder(folder, classes=[…]) in Python."
        )
    decoder = load_component(known[name], folder, own=classes)
    decoder.requires_grad_(False)
    return cast(ModelMixin, configured(decoder, given))


def decoder_class(folder: str | Path) -> type[Any] | None:
    """The decoder class that a folder is loaded as, by its configuration alone; None for one of somebody's own.

    Raises:
        BundleError: the configuration is damaged.
    """
    root = Path(folder)
    if is_diffusers_folder(root):
        return diffusers_class(root)
    if not (root / CONFIG).is_file():
        return None
    name = read_json(root / CONFIG).get("_class_name")
    return next((kind for kind in DECODERS.values() if kind.__name__ == name), None)


def _is_folder(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / INDEX).is_file()


def _folder(path_or_name: str | Path) -> Path:
    folder = Path(path_or_name)
    if _is_folder(folder):
        return folder
    known, names = shipped("checkpoints"), {DEFAULT, "pixels", *KINDS, *BASES}
    if str(path_or_name) in known:
        return known[str(path_or_name)]
    if folder.is_dir():
        raise InputError(
            f"{folder}: has no config.json; give one that `latentdc fit gan` or diffusers wrote, or a shipped name."
        )
    raise InputError(
        f"{unknown('decoder', str(path_or_name), names.union(known))} A folder with config.json and safetensors will "
        "do too; `latentdc fit gan` makes one. Change it with --decoder (--autoencoder of fit diffusion)."
    )


def fits(card: dict[str, Any], spec: DataSpec) -> bool:
    """Whether a checkpoint's card says that it decodes such data: same shape, name, and classes in the same order.

    The name fits if it equals ``data`` or is listed in ``also_fits``. A class is a number to the decoder: the same
    classes in another order would decode to each other's images.
    """
    named = card.get("data") == spec.name or spec.name in card.get("also_fits", ())
    shape = tuple(card.get("image_shape", ())) == tuple(spec.image_shape)
    return named and shape and tuple(card.get("class_names", ())) == tuple(spec.class_names)


def default_decoder(spec: DataSpec, kind: str | None = None, *, space: str | None = None) -> Path | None:
    """Folder of the shipped checkpoint that fits the data, or None: a GAN, else a diffusion model, else others by name.

    Args:
        spec: the data to decode.
        kind: a name of ``KINDS``, to have one of these; None for any but an autoencoder.
        space: a latent space that it should have; where none has it, it is left out of account.
    """
    cards = {folder: read_card(folder) for folder in shipped("checkpoints").values() if (folder / CONFIG).is_file()}
    found = [folder for folder, card in cards.items() if fits(card, spec) and _wanted(card.get("kind"), kind)]
    found.sort(key=lambda folder: (_rank(cards[folder]), folder.name))
    having = (folder for folder in found if space is not None and _has(folder, space))
    return next(having, found[0] if found else None)


def _wanted(found: object, kind: str | None) -> bool:
    return found == kind if kind else found != _NO_PRIOR


def _rank(card: Mapping[str, Any]) -> int:
    kind = card.get("kind")
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _has(folder: Path, space: str) -> bool:
    """Whether the decoder of a folder can be read in a latent space; its weights are not loaded."""
    kind = decoder_class(folder)
    if kind is None or "space" not in known_settings(kind):
        return False
    config = {key: value for key, value in read_json(folder / CONFIG).items() if not key.startswith("_")}
    try:
        with torch.device("meta"):
            kind(**{**config, "space": space})
    except ValueError:
        return False
    return True


def locate(decoder: str | Path | None, spec: DataSpec, *, space: str | None = None) -> Path:
    """The folder of the decoder that a user asked for.

    Args:
        decoder: a decoder folder, a shipped checkpoint's name, one of ``KINDS`` for the shipped one of that kind that
            fits the data, or None (or ``"default"``) for the shipped one that fits best.
        spec: the data to decode.
        space: a latent space that a shipped one should have, if any has it.

    Raises:
        InputError: there is no such decoder, or no shipped one fits.
    """
    wanted = None if decoder is None else str(decoder)
    kind = wanted if wanted in KINDS else None
    if wanted is not None and (_is_folder(Path(wanted)) or (wanted != DEFAULT and kind is None)):
        return _folder(wanted)
    found = default_decoder(spec, kind, space=space)
    if found is None:
        ways = (
            f"Train one on your data with `latentdc fit {kind}` and name its folder: --set decoder.kind=FOLDER."
            if kind
            else _WAYS
        )
        if kind is None and (coder := default_decoder(spec, _NO_PRIOR)) is not None:
            first = f"Take the autoencoder {coder.name}, from real images: --decoder {coder.name} --set init=real."
            ways = f"{first} Or {ways[0].lower()}{ways[1:]}"
        raise InputError(
            f'no shipped decoder{f" of kind {kind}" if kind else ""} fits the data "{spec.name}" with images '
            f"{_text(spec.image_shape)} and {spec.num_classes} classes (shipped: "
            f"{', '.join(shipped('checkpoints')) or 'none'}). {ways}"
        )
    return found


def resolve_decoder(
    decoder: str | Path | None,
    spec: DataSpec,
    *,
    settings: Mapping[str, Any] | None = None,
    classes: Sequence[type[nn.Module]] = (),
) -> ModelMixin:
    """The decoder a user asked for, checked against the data.

    Args:
        decoder: ``"pixels"``, or what ``locate`` finds: a name, a kind, a folder, or None for the shipped one that
            fits.
        spec: the data to decode.
        settings: what to read otherwise; see ``load_decoder``.
        classes: see ``load_decoder``.

    Raises:
        InputError: no shipped checkpoint fits, the given one decodes images of another shape or class count, or a
            setting that the decoder does not have.
        BundleError: the checkpoint is damaged.
    """
    given = dict(settings or {})
    if str(decoder) == "pixels":
        check_settings(PixelsDecoder, given, "decoder pixels")
        pixels: ModelMixin = PixelsDecoder(list(spec.image_shape), list(spec.mean), list(spec.std)).eval()
        return pixels
    folder = locate(decoder, spec, space=given.get("space"))
    module = load_decoder(folder, spec, settings=given, classes=classes)
    found = decoder in (None, DEFAULT, *KINDS)
    check_fits(module, spec, folder.name if found else str(decoder), read_card(folder).get("class_names"))
    return module


def check_fits(module: Any, spec: DataSpec, name: str, class_names: Sequence[str] | None = None) -> None:
    """Refuse a decoder of other images or classes than the data's.

    Args:
        module: the decoder.
        spec: the data to decode.
        name: what the decoder is called.
        class_names: those it was trained with, in order, where known.

    Raises:
        InputError: another image shape, number of classes, or order of the same classes.
    """
    config = getattr(module, "config", {})
    classes = config.get("num_classes") or spec.num_classes  # None or 0: without classes it fits any number
    if tuple(module.image_shape) != tuple(spec.image_shape) or classes != spec.num_classes:
        raise InputError(
            f'decoder "{name}" makes images {_text(module.image_shape)} of {classes} classes, the data '
            f'"{spec.name}" has {_text(spec.image_shape)} and {spec.num_classes}. {_WAYS}'
        )
    same = class_names is not None and sorted(class_names) == sorted(spec.class_names)
    if class_names is not None and same and tuple(class_names) != tuple(spec.class_names):
        raise InputError(
            f'decoder "{name}" knows the classes of "{spec.name}" in another order: {", ".join(class_names)}; the data '
            f"has {', '.join(spec.class_names)}. Give --classes in the decoder's order. {_WAYS}"
        )


def _text(shape: Any) -> str:
    return " x ".join(str(side) for side in shape)
