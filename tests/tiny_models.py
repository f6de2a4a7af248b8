"""Configurations of the smallest diffusers models that make or take 8x8 images, and decoders over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
from torch import nn

from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.decoders.schedules import plan_of
from latentdc.portable.autoencoder import AutoencoderDecoder

KL: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "latent_channels": 2,
    "norm_num_groups": 4,
    "sample_size": 8,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
}
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": KL,
    "VQModel": {**{key: value for key, value in KL.items() if key != "shift_factor"}, "num_vq_embeddings": 8},
    "AutoencoderTiny": {
        "in_channels": 1,
        "out_channels": 1,
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "num_encoder_blocks": [1, 1],
        "num_decoder_blocks": [1, 1],
        "latent_channels": 2,
    },
    "AutoencoderDC": {
        "in_channels": 3,
        "latent_channels": 2,
        "attention_head_dim": 4,
        "encoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "encoder_layers_per_block": [1, 1],
        "decoder_layers_per_block": [1, 1],
        "encoder_qkv_multiscales": [[], []],
        "decoder_qkv_multiscales": [[], []],
    },
}
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
DIT: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "in_channels": 2,
    "out_channels": 4,  # with a learned variance
    "num_layers": 1,
    "sample_size": 4,
    "patch_size": 2,
    "num_embeds_ada_norm": 3,
    "norm_num_groups": 2,
}
DDIM: dict[str, Any] = {"_class_name": "DDIMScheduler", "clip_sample": False}
FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def tiny_autoencoder(name: str, **settings: Any) -> AutoencoderDecoder:
    """A decoder of 8x8 grey images over an autoencoder."""
    return AutoencoderDecoder(name, AUTOENCODERS[name], [1, 8, 8], **settings)


def tiny_unet(classes: int | None = None, **config: Any) -> diffusers.UNet2DModel:
    """A UNet over 8x8 grey images."""
    return diffusers.UNet2DModel(**{**UNET, "num_class_embeds": classes, **config})


def tiny_diffusion(
    scheduler: dict[str, Any] = DDIM, *, steps: int = 2, classes: int | None = 3, dit: bool = False, **settings: Any
) -> DiffusionDecoder:
    """A decoder of 8x8 grey images: a UNet in pixels, or a DiT in the latents of AutoencoderKL.

    With ``classes`` = 4 the last of the denoiser's stands for none.
    """
    prediction, plan = plan_of(scheduler, steps)
    num = None if classes is None else 3
    if dit:
        settings = {"autoencoder_class": "AutoencoderKL", "autoencoder_config": KL, **settings}
        return DiffusionDecoder("DiTTransformer2DModel", DIT, [1, 8, 8], prediction, plan, num, **settings)
    config = {**UNET, "num_class_embeds": classes}
    return DiffusionDecoder("UNet2DModel", config, [1, 8, 8], prediction, plan, num, **settings)


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "autoencoder-tiny": lambda: tiny_autoencoder("AutoencoderTiny"),
    "autoencoder-dc": lambda: tiny_autoencoder("AutoencoderDC"),
    "autoencoder-vq": lambda: tiny_autoencoder("VQModel"),
    "diffusion-unconditional": lambda: tiny_diffusion({**DDIM, "prediction_type": "v_prediction"}, classes=None),
    "diffusion-guided": lambda: tiny_diffusion(classes=4, guidance=3.0, null_class=3, learn_condition=True),
    "diffusion-dit": lambda: tiny_diffusion(dit=True, guidance=2.0, null_class=3),
    "diffusion-flow": lambda: tiny_diffusion(FLOW),
    "diffusion-noised": lambda: tiny_diffusion(eta=0.5, skip="state", steps=3),
    "diffusion-skip": lambda: tiny_diffusion(skip="x0", steps=3),
    "diffusion-late": lambda: tiny_diffusion(steps=5, start=0.6),
    "diffusion-vq": lambda: tiny_diffusion(
        {**DDIM, "prediction_type": "sample"},
        classes=None,
        autoencoder_class="VQModel",
        autoencoder_config={**AUTOENCODERS["VQModel"], "latent_channels": 1},
    ),
    "diffusion-one-step": lambda: tiny_diffusion(
        {"_class_name": "CMStochasticIterativeScheduler", "clip_denoised": False}, steps=1
    ),
}
"""More instances of the decoders of the table, for every kind of model inside."""
