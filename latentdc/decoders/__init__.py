"""Decoders (latents to images) and formations (images to more images), by the names recipes use."""

from __future__ import annotations

from diffusers.models.modeling_utils import ModelMixin

from latentdc.portable.biggan import BigGanDecoder
from latentdc.portable.gan import GanDecoder
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.stylegan2 import StyleGan2Decoder
from latentdc.portable.tiles import TilesFormation

DECODERS: dict[str, type[ModelMixin]] = {
    "pixels": PixelsDecoder,
    "gan": GanDecoder,
    "stylegan2": StyleGan2Decoder,
    "biggan": BigGanDecoder,
}
FORMATIONS: dict[str, type[ModelMixin]] = {"tiles": TilesFormation}
