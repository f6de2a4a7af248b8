"""Decoders (latents to images) and formations (images to more images), by the names recipes use."""

from __future__ import annotations

from diffusers.models.modeling_utils import ModelMixin

from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.portable.diffusion import DiffusionDecoder
from latentdc.portable.gan import GanDecoder
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation

DECODERS: dict[str, type[ModelMixin]] = {
    "pixels": PixelsDecoder,
    "gan": GanDecoder,
    "autoencoder": AutoencoderDecoder,
    "diffusion": DiffusionDecoder,
}
FORMATIONS: dict[str, type[ModelMixin]] = {"tiles": TilesFormation}
