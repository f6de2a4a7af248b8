"""Decoders from a folder that diffusers wrote: an autoencoder, or a pipeline that draws images."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.modeling_utils import ModelMixin

from latentdc.decoders.components import load_component, read_json
from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.decoders.wrapping import autoencoder_decoder, diffusion_decoder
from latentdc.errors import BundleError, InputError
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.portable.diffusion import AUTOENCODERS, DENOISERS
from latentdc.types import DataSpec

INDEX = "model_index.json"
CONFIG = "config.json"
_log = logging.getLogger(__name__)
_ROLES = {"denoiser": ("unet", "transformer"), "autoencoder": ("vae", "vqvae")}
"""Names that pipelines give to the parts that are read."""
_CLIPS = ("clip_sample", "clip_denoised", "thresholding")


def is_diffusers_folder(folder: Path) -> bool:
    """Whether a folder holds a pipeline, or one of the autoencoders."""
    if (folder / INDEX).is_file():
        return True
    return (folder / CONFIG).is_file() and read_json(folder / CONFIG).get("_class_name") in AUTOENCODERS


def diffusers_class(folder: Path) -> type[ModelMixin]:
    """The class of the decoder that ``load_diffusers_folder`` makes of a folder."""
    kind: type[ModelMixin] = DiffusionDecoder if (folder / INDEX).is_file() else AutoencoderDecoder
    return kind


def load_diffusers_folder(
    folder: str | Path,
    spec: DataSpec | None = None,
    *,
    steps: int | None = None,
    class_ids: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ModelMixin:
    """The decoder in an autoencoder's or a pipeline's folder, from safetensors only; no code of the folder runs.

    Args:
        folder: with ``config.json`` (``AutoencoderKL``, ``AutoencoderTiny``, ``AutoencoderDC``, ``VQModel``) or
            ``model_index.json`` (``unet`` or ``transformer``, ``scheduler``, perhaps ``vae`` or ``vqvae``).
        spec: the data to decode; None for the image size and classes of the model.
        steps: of a diffusion model; None for 10, or 1 where it was made for one.
        class_ids: the model's class for each of the data's; None finds them by name, or takes them as they are.
        settings: further arguments of ``AutoencoderDecoder`` or ``DiffusionDecoder`` by name.

    Raises:
        InputError: classes that are not supported, or a model that does not fit the data.
        BundleError: a damaged file, or weights that are missing, unexpected or not in safetensors.
    """
    root = Path(folder)
    if not (root / INDEX).is_file():
        module = _model(root, AUTOENCODERS)
        shape = _image_shape(module, None) if spec is None else spec.image_shape
        return autoencoder_decoder(module, shape, settings=settings)
    index = read_json(root / INDEX)
    _check_index(root, index)
    found = {role: [name for name in names if _there(index, name)] for role, names in _ROLES.items()}
    autoencoder = _model(root / found["autoencoder"][0], AUTOENCODERS) if found["autoencoder"] else None
    denoiser: Any = _model(root / found["denoiser"][0], DENOISERS)
    known = _num_classes(denoiser)
    given = dict(settings or {})
    num = known
    if known is not None and spec is not None:
        given["class_ids"] = _class_ids(index, known, spec) if class_ids is None else list(class_ids)
        num = spec.num_classes
    elif class_ids is not None:
        given["class_ids"], num = list(class_ids), len(class_ids)
    return diffusion_decoder(
        denoiser,
        _scheduler(root),
        _image_shape(autoencoder, denoiser) if spec is None else spec.image_shape,
        steps=steps,
        num_classes=num,
        autoencoder=autoencoder,
        settings=given,
    )


def _there(index: Mapping[str, Any], name: str) -> bool:
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _check_index(root: Path, index: Mapping[str, Any]) -> None:
    name = index.get("_class_name")
    if isinstance(name, list):
        if not (root / "manifest.json").is_file():
            raise InputError(f"{root}: is no decoder, and a bundle of which manifest.json is missing: copy it whole.")
        raise InputError(f"{root}: is a bundle, a set of images with its decoder; the decoder alone is {root}/decoder.")
    text = [part for part in index if part.startswith(("text_encoder", "tokenizer", "prior")) and _there(index, part)]
    parts = [part for part in index if _there(index, part)]
    if text or not any(_there(index, part) for part in _ROLES["denoiser"]) or not _there(index, "scheduler"):
        reason = f"text drives it ({', '.join(text)})" if text else "it has no unet or transformer with a scheduler"
        ways = [f"{root}/{part}" for part in _ROLES["autoencoder"] if _there(index, part)]
        hint = f" Its autoencoder alone will do: {ways[0]}." if ways else ""
        raise InputError(
            f"{root}: a {name} cannot be a decoder: {reason}; it has {', '.join(parts) or 'nothing'}. Give a pipeline "
            f"that makes images from noise and classes, such as DDPMPipeline, LDMPipeline or DiTPipeline.{hint}"
        )


def _model(folder: Path, known: Sequence[str]) -> ModelMixin:
    name = read_json(folder / CONFIG).get("_class_name")
    if name not in known:
        raise InputError(f"{folder}: {name} cannot be used here; supported are {', '.join(known)}.")
    return load_component(getattr(diffusers, str(name)), folder)


def _scheduler(root: Path) -> dict[str, Any]:
    config = read_json(root / "scheduler" / "scheduler_config.json")
    name = str(config.get("_class_name"))
    known = inspect.signature(getattr(diffusers, name, dict).__init__).parameters
    clips = [key for key in _CLIPS if key in known and config.get(key, known[key].default)]
    if clips:
        # What a pipeline clamps it clamps for looks; a latent behind the clamp would never get a gradient.
        _log.warning("%s: %s is taken without %s, which would stop gradients", root, name, " and ".join(clips))
    return {**config, **dict.fromkeys(_CLIPS, False)}


def _num_classes(denoiser: Any) -> int | None:
    key = "num_embeds_ada_norm" if "num_embeds_ada_norm" in denoiser.config else "num_class_embeds"
    number = denoiser.config.get(key)
    return None if number is None else int(number)


def _class_ids(index: Mapping[str, Any], known: int, spec: DataSpec) -> list[int]:
    """The model's class of each of the data's: by name where the pipeline names its classes, else by number.

    Raises:
        InputError: names that are not found and numbers that differ.
    """
    names = index.get("id2label") or {}
    try:
        by_name = {word.strip(): int(number) for number, words in names.items() for word in str(words).split(",")}
    except (AttributeError, ValueError) as error:
        raise BundleError(
            f"model_index.json: id2label = {str(names)[:60]}: a name for each number is needed."
        ) from error
    if all(name in by_name for name in spec.class_names):
        return [by_name[name] for name in spec.class_names]
    if spec.num_classes == known:
        return list(range(known))
    raise InputError(
        f'the model has {known} classes, the data "{spec.name}" has {spec.num_classes}, and names do not tell which is '
        "which. Give the model's number of each of the data's classes, in their order: --set 'decoder.class_ids=[…]', "
        'or load_decoder(folder, spec, settings={"class_ids": […]}) in Python.'
    )


def _image_shape(autoencoder: Any, denoiser: Any) -> tuple[int, ...]:
    """What the model was made for, by its configuration.

    Raises:
        InputError: the configuration does not tell.
    """
    model = autoencoder if denoiser is None else denoiser
    size = model.config.get("sample_size")
    if size is None:
        raise InputError(f"{type(model).__name__} does not tell its image size; give the data (spec) to decode.")
    height, width = size if isinstance(size, list | tuple) else (size, size)
    factor, last = 1, model if autoencoder is None else autoencoder
    if autoencoder is not None and denoiser is not None:
        levels = autoencoder.config.get("decoder_block_out_channels") or autoencoder.config.block_out_channels
        factor = autoencoder.config.get("upsampling_scaling_factor", 2) ** (len(levels) - 1)
    channels = last.config.in_channels
    return (int(channels), height * factor, width * factor)
