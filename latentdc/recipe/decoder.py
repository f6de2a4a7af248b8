"""Which decoder a recipe means, and under which name it is known elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import nn

from latentdc.decoders import BASES
from latentdc.decoders.reference import default_decoder, resolve_decoder
from latentdc.networks.pool import fingerprint
from latentdc.recipe.parts import make_part
from latentdc.recipe.spec import Part, Recipe
from latentdc.resources import shipped
from latentdc.types import DataSpec, Decoder


def with_decoder(
    recipe: Recipe, spec: DataSpec, decoder: Decoder | None, decoder_name: str | None
) -> tuple[Decoder, Recipe]:
    """The decoder, and the recipe with the name of the one that was found.

    Args:
        recipe: the recipe.
        spec: the data set's description.
        decoder: a decoder of one's own, instead of the one the recipe names.
        decoder_name: where it can be had; found out if left out.

    Raises:
        RecipeError: an option that a decoder stored with the set does not know, or that does not fit the data.
        InputError: no decoder fits the data.
        BundleError: the decoder's checkpoint is damaged.
    """
    if decoder is None:
        if (stored := _stored(recipe)) is not None:
            return make_part("decoder", stored, spec=spec), replace(recipe, decoder=stored)
        assert isinstance(recipe.decoder, str)
        decoder = cast(Decoder, resolve_decoder(None if recipe.decoder == "default" else recipe.decoder, spec))
        decoder_name = decoder_name or _name(recipe.decoder, decoder, spec)
    return decoder, replace(recipe, decoder=decoder_name or _with_weights(type(decoder).__name__, decoder))


def _stored(recipe: Recipe) -> Part | None:
    """The part, where the recipe names a decoder that is made for the data and stored with the set."""
    if isinstance(recipe.decoder, Part):
        return recipe.decoder
    return Part(recipe.decoder) if recipe.decoder in BASES else None


def _name(reference: str, decoder: Decoder, spec: DataSpec) -> str:
    """The name of a decoder that was found under a reference; never a path, which means nothing elsewhere."""
    if reference == "pixels":
        return reference
    folder = default_decoder(spec) if reference == "default" else Path(reference)
    if folder is None or not (folder / "config.json").is_file():
        return reference
    known = {path.resolve(): name for name, path in shipped("checkpoints").items()}
    name = known.get(folder.resolve())
    return name or _with_weights(folder.resolve().name, decoder)


def _with_weights(name: str, decoder: Decoder) -> str:
    """A name that somebody else may have given to something else, with the sha256 of the weights."""
    return f"{name}@sha256:{fingerprint(decoder)}" if isinstance(decoder, nn.Module) else name
