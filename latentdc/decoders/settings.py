"""A pretrained decoder read in another way: its latent space, steps or guidance changed, its weights shared."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch
from torch import nn

from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.errors import InputError, unknown
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.portable.biggan import BigGanDecoder
from latentdc.portable.gan import GanDecoder
from latentdc.portable.stylegan2 import StyleGan2Decoder

STEPS = "steps"
"""A setting that is no argument of a constructor: fewer steps than the decoder's plan has."""
_GAN = ("space", "truncation")
_STEPPED = ("learn_condition", "guidance", "null_class", "class_ids", "skip", "backward_steps", "recompute", "eta")
SETTINGS: dict[type[nn.Module], tuple[str, ...]] = {
    GanDecoder: _GAN,
    StyleGan2Decoder: _GAN,
    BigGanDecoder: _GAN,
    AutoencoderDecoder: ("quantise", "latent_scale", "latent_shift"),
    DiffusionDecoder: ("plan", *_STEPPED, "noise_seed", "start"),
}
"""Arguments of a decoder's constructor that leave its weights what they are."""


def known_settings(kind: type[Any]) -> dict[str, Any]:
    """Settings of a decoder class with the type of each; none for a class without."""
    names = SETTINGS.get(kind, ())
    hints = get_type_hints(kind.__init__) if names else {}
    return {name: hints[name] for name in names} | ({STEPS: int} if "plan" in names else {})


def current_settings(decoder: Any) -> dict[str, Any]:
    """Settings of a decoder as they are, in JSON's values; those at their default left out."""
    kind = type(decoder)
    defaults = {name: each.default for name, each in inspect.signature(kind.__init__).parameters.items()}
    found = {name: decoder.config[name] for name in SETTINGS.get(kind, ())}
    plain: dict[str, Any] = json.loads(json.dumps({k: v for k, v in found.items() if v != defaults[k]}))
    return plain


def check_settings(kind: type[Any], given: Mapping[str, Any], what: str = "") -> None:
    """Refuse a setting that a decoder class does not have.

    Raises:
        InputError: naming the nearest one.
    """
    known = known_settings(kind)
    for name in given:
        if name not in known:
            raise InputError(f"decoder.{name}: {unknown(f'setting of a {what or kind.__name__}', name, known)}")


def configured(decoder: Any, given: Mapping[str, Any]) -> Any:
    """The same weights, shared with the decoder, under other settings.

    Args:
        decoder: of a class of ``SETTINGS``.
        given: settings by name: the constructor's arguments listed there, and ``steps`` of a diffusion decoder, which
            takes the first of each group of as many neighbouring steps of the plan, from its level to the next group's.

    Raises:
        InputError: a setting that the class does not have, or a value that it refuses.
    """
    if not given:
        return decoder
    kind = type(decoder)
    check_settings(kind, given)
    config = {name: value for name, value in decoder.config.items() if not name.startswith("_")}
    changes = {name: value for name, value in given.items() if name != STEPS}
    if STEPS in given:
        changes["plan"] = thinned(changes.get("plan", config["plan"]), given[STEPS])
    try:
        with torch.device("meta"):  # its weights are thrown away
            other = kind(**{**config, **changes})
    except (ValueError, TypeError) as error:
        named = ", ".join(f"{name} = {json.dumps(value)}" for name, value in given.items())
        raise InputError(f"decoder with {named}: {error}") from error
    for name, part in decoder.named_children():
        setattr(other, name, part)
    for name, value in (*decoder.named_parameters(recurse=False), *decoder.named_buffers(recurse=False)):
        setattr(other, name, value)
    return other.train(decoder.training)


def thinned(plan: Any, steps: int) -> list[list[float]]:
    """A plan [time, level, next level] of k steps as one of fewer: neighbours put together, ``k / steps`` at a time.

    Raises:
        InputError: the number does not divide k.
    """
    num = len(plan)
    fit = [n for n in range(1, num + 1) if num % n == 0]
    if not isinstance(steps, int) or steps not in fit:
        raise InputError(
            f"decoder.steps = {steps}: this decoder's plan has {num}, of which {', '.join(map(str, fit))} can be "
            "taken; for others load the model with its scheduler from a folder of diffusers."
        )
    size = num // steps
    return [[*plan[i][:-1], plan[i + size - 1][-1]] for i in range(0, num, size)]
