"""Models of diffusers, already loaded, as decoders; refused where their gradient would be wrong."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.decoders.schedules import AT_ONCE, plan_of
from latentdc.errors import InputError
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.portable.diffusion import receptive


def check_plain(module: nn.Module, what: str) -> None:
    """Refuse a module whose weights move or change their type while it runs.

    Raises:
        InputError: hooks of accelerate or diffusers, weights in 8 bits, or weights that are not there.
    """
    for name, part in module.named_modules():
        where = f"{what}{'.' if name else ''}{name}"
        hooks = list(getattr(getattr(part, "_diffusers_hook", None), "hooks", {}))
        if "layerwise_casting" in hooks:
            raise InputError(
                f"{where}: layerwise casting puts the weights back to their small type before the backward pass, which "
                "then fails. Load the model again and do not call enable_layerwise_casting."
            )
        if hooks or getattr(part, "_hf_hook", None) is not None:
            named = ", ".join(hooks) or type(part._hf_hook).__name__
            raise InputError(
                f"{where}: has the hook {named}, which takes the weights away after the forward pass, before the "
                "backward pass needs them. Load the model without offloading (no enable_*_cpu_offload, no device_map)."
            )
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        if weight.is_meta:
            raise InputError(f"{what}.{name}: has no values (it is on the meta device); load the weights first.")
        if weight.is_floating_point() and weight.element_size() < 2:
            raise InputError(f"{what}.{name}: is {weight.dtype}, which has no gradient; load it in bfloat16 or more.")


def _config(module: Any) -> dict[str, Any]:
    """The arguments the module was made with."""
    known = inspect.signature(type(module).__init__).parameters
    return {key: value for key, value in module.config.items() if key in known}


def _frozen(decoder: Any) -> Any:
    return decoder.eval().requires_grad_(False)


def autoencoder_decoder(
    module: nn.Module, image_shape: Sequence[int], *, settings: Mapping[str, Any] | None = None
) -> AutoencoderDecoder:
    """A decoder over a loaded autoencoder of diffusers: the module itself, not a copy, frozen.

    Args:
        module: an ``AutoencoderKL``, ``AutoencoderTiny``, ``AutoencoderDC`` or ``VQModel``.
        image_shape: ``(c, h, w)`` to decode.
        settings: further arguments of ``AutoencoderDecoder`` by name.

    Raises:
        InputError: a class that is not among these, a shape it cannot make, or hooks that spoil gradients.
    """
    check_plain(module, "autoencoder")
    name, given = type(module).__name__, dict(settings or {})
    try:
        with torch.device("meta"):  # its weights are thrown away
            decoder = AutoencoderDecoder(name, _config(module), list(image_shape), **given)
    except (ValueError, TypeError) as error:
        raise InputError(f"autoencoder {name}: {error}.") from error
    decoder.autoencoder = module
    ready: AutoencoderDecoder = _frozen(decoder)
    return ready


def diffusion_decoder(
    denoiser: nn.Module,
    scheduler: Mapping[str, Any],
    image_shape: Sequence[int],
    *,
    steps: int | None = None,
    num_classes: int | None = None,
    autoencoder: nn.Module | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DiffusionDecoder:
    """A decoder over a loaded diffusion model: the modules themselves, not copies, frozen.

    Args:
        denoiser: a ``UNet2DModel`` or ``DiTTransformer2DModel``.
        scheduler: configuration of its scheduler, with ``_class_name``.
        image_shape: ``(c, h, w)`` to decode.
        steps: how many; None for 10, or 1 where the model was made for one.
        num_classes: number of classes; None for a denoiser without.
        autoencoder: decodes what the denoiser makes; None where that is pixels.
        settings: further arguments of ``DiffusionDecoder`` by name, for instance ``{"guidance": 3.0}``.

    Raises:
        InputError: parts that do not fit each other, a scheduler that clips or keeps state, or hooks that spoil
            gradients.
    """
    for what, module in (("denoiser", denoiser), ("autoencoder", autoencoder)):
        if module is not None:
            check_plain(module, what)
    once = scheduler.get("_class_name") in AT_ONCE
    prediction, plan = plan_of(scheduler, steps if steps is not None else 1 if once else 10)
    given, name = dict(settings or {}), type(denoiser).__name__
    if autoencoder is not None:
        given |= {"autoencoder_class": type(autoencoder).__name__, "autoencoder_config": _config(autoencoder)}
    try:
        with torch.device("meta"):  # its weights are thrown away
            decoder = DiffusionDecoder(
                name, _config(denoiser), list(image_shape), prediction, plan, num_classes, **given
            )
    except (ValueError, TypeError) as error:
        raise InputError(f"diffusion model {name}: {error}.") from error
    decoder.denoiser, decoder.autoencoder = receptive(denoiser), autoencoder
    ready: DiffusionDecoder = _frozen(decoder)
    return ready
