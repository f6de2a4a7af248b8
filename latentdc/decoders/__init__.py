"""Decoders (latents to images) and formations (images to more images), by the names recipes use."""

from __future__ import annotations

from diffusers.models.modeling_utils import ModelMixin

from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.portable.biggan import BigGanDecoder
from latentdc.portable.channels import ChannelsFormation
from latentdc.portable.frequency import FrequencyDecoder
from latentdc.portable.gan import GanDecoder
from latentdc.portable.hallucinators import HallucinatorsFormation
from latentdc.portable.memory import MemoryDecoder
from latentdc.portable.module import ModuleDecoder
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.stylegan2 import StyleGan2Decoder
from latentdc.portable.tiles import TilesFormation

BASES: dict[str, type[ModelMixin]] = {"memory": MemoryDecoder, "frequency": FrequencyDecoder}
"""Decoders that are made for a data set by a recipe and stored as part of the set, rather than pretrained."""
DECODERS: dict[str, type[ModelMixin]] = {
    "pixels": PixelsDecoder,
    "gan": GanDecoder,
    "stylegan2": StyleGan2Decoder,
    "biggan": BigGanDecoder,
    "autoencoder": AutoencoderDecoder,
    "diffusion": DiffusionDecoder,
    "module": ModuleDecoder,
    **BASES,
}
FORMATIONS: dict[str, type[ModelMixin]] = {
    "tiles": TilesFormation,
    "channels": ChannelsFormation,
    "hallucinators": HallucinatorsFormation,
}
