"""Which decoder a recipe means, under which settings, and under which name it is known elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from latentdc.decoders.reference import check_fits, decoder_class, locate, resolve_decoder
from latentdc.decoders.settings import check_settings, configured, current_settings, known_settings
from latentdc.networks.pool import fingerprint
from latentdc.recipe.parts import is_stored, make_part
from latentdc.recipe.spec import Part, Recipe
from latentdc.recipe.values import plain_value
from latentdc.resources import shipped
from latentdc.types import DataSpec, Decoder


def with_decoder(
    recipe: Recipe, spec: DataSpec, decoder: Decoder | None, decoder_name: str | None
) -> tuple[Decoder, Recipe]:
    """The decoder, and the recipe with the name of the one that was found and the settings that were asked for.

    Args:
        recipe: the recipe.
        spec: the data set's description.
        decoder: a decoder of one's own, instead of the one the recipe names; the recipe's settings apply to it.
        decoder_name: where it can be had; found out if left out.

    Raises:
        RecipeError: an option of a decoder stored with the set, or a setting of a pretrained one, that is unknown, of
            another type, or does not fit the data.
        InputError: no decoder fits the data.
        BundleError: the decoder's checkpoint is damaged.
    """
    wanted = recipe.decoder if isinstance(recipe.decoder, Part) else Part(recipe.decoder)
    if is_stored(wanted.kind):
        if decoder is None:
            return make_part("decoder", wanted, spec=spec), replace(recipe, decoder=wanted)
        wanted = Part(type(decoder).__name__)
    settings = dict(wanted.options)
    if decoder is None:
        decoder, settings, found = _pretrained(wanted, spec)
        decoder_name = decoder_name or found
    else:
        settings = _typed(type(decoder), settings)
        decoder = cast(Decoder, configured(decoder, settings))
        check_fits(decoder, spec, type(decoder).__name__)
    name = decoder_name or _with_weights(type(decoder).__name__, decoder)
    return decoder, replace(recipe, decoder=Part(name, settings) if settings else name)


def forgone(before: Recipe, after: Recipe) -> str:
    """What a recipe set of its pretrained decoder and one that took its place was not given, in a line; or nothing."""
    was, now = before.decoder, after.decoder
    if isinstance(was, str) or is_stored(was.kind):
        return ""
    told = {} if isinstance(now, str) else now.options
    lost = {name: value for name, value in was.options.items() if name not in told}
    if not lost:
        return ""
    settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in lost.items())
    return (
        f'the recipe "{before.name}" reads its decoder with {settings}, and the one given in its place is read '
        "without: to keep these settings, name it with --set decoder.kind=…"
    )


def decoder_text(decoder: str | Part) -> str:
    """A recipe's decoder in a line: its name, and the settings of a pretrained one.

    >>> decoder_text(Part("fashion-mnist-gan", {"space": "w+"}))
    'fashion-mnist-gan (space = "w+")'
    """
    if isinstance(decoder, str):
        return decoder
    if is_stored(decoder.kind) or not decoder.options:
        return decoder.kind
    return f"{decoder.kind} ({', '.join(f'{name} = {json.dumps(value)}' for name, value in decoder.options.items())})"


def decoder_identity(decoder: Decoder) -> dict[str, Any]:
    """What of a decoder decides its images: the sha256 of its weights, and its settings."""
    if not isinstance(decoder, nn.Module):
        return {"decoder.sha256": ""}
    settings = {f"decoder.{name}": value for name, value in current_settings(decoder).items()}
    return {"decoder.sha256": fingerprint(decoder), **settings}


def _pretrained(wanted: Part, spec: DataSpec) -> tuple[Decoder, dict[str, Any], str]:
    """The decoder that a recipe names, its settings by type, and its name."""
    settings = dict(wanted.options)
    if wanted.kind == "pixels":
        return cast(Decoder, resolve_decoder("pixels", spec, settings=settings)), settings, "pixels"
    folder = locate(wanted.kind, spec, space=settings.get("space"))
    if (kind := decoder_class(folder)) is not None:
        settings = _typed(kind, settings)
    decoder = cast(Decoder, resolve_decoder(wanted.kind, spec, settings=settings))
    return decoder, settings, _name(folder, decoder)


def _typed(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a decoder class, each known to it and of the type it asks for."""
    check_settings(kind, given)
    hints = known_settings(kind)
    return {name: plain_value(hints[name], value, f"decoder.{name}") for name, value in given.items()}


def _name(folder: Path, decoder: Decoder) -> str:
    """The name of a decoder that was found in a folder; never a path, which means nothing elsewhere."""
    known = {path.resolve(): name for name, path in shipped("checkpoints").items()}
    return known.get(folder.resolve()) or _with_weights(folder.resolve().name, decoder)


def _with_weights(name: str, decoder: Decoder) -> str:
    """A name that somebody else may have given to something else, with the sha256 of the weights."""
    return f"{name}@sha256:{fingerprint(decoder)}" if isinstance(decoder, nn.Module) else name
