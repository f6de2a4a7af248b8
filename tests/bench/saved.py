"""What the pull-back through a decoder holds: bytes saved for the backward pass, and all bytes alive, at the most.

Decoders have the shape of large ones and tiny widths, so that counts say how memory grows, not how large a model is.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from latentdc.decoders.chunks import LiveBytes
from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.decoders.schedules import plan_of
from latentdc.latents import decoded
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.portable.bank import LatentBank
from latentdc.seeding import global_seed, stream

LEVELS = 4
"""Levels of resolution of the autoencoder: images are eight times as high and wide as latents."""
KL: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * LEVELS,
    "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
    "block_out_channels": [8] * LEVELS,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def autoencoder(side: int) -> nn.Module:
    """A KL decoder of colour images."""
    with global_seed(0, "bench-memory"):
        decoder = AutoencoderDecoder("AutoencoderKL", KL, [3, side, side])
    return decoder.eval().requires_grad_(False)


def diffusion(side: int, steps: int, *, recompute: bool = True) -> nn.Module:
    """Steps of DDIM in the latents of such a decoder."""
    prediction, plan = plan_of({"_class_name": "DDIMScheduler", "clip_sample": False}, steps)
    config = {**UNET, "sample_size": side // 2 ** (LEVELS - 1)}
    within = {"autoencoder_class": "AutoencoderKL", "autoencoder_config": KL}
    with global_seed(0, "bench-memory"):
        decoder = DiffusionDecoder(
            "UNet2DModel", config, [3, side, side], prediction, plan, recompute=recompute, **within
        )
    return decoder.eval().requires_grad_(False)


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd has saved inside the block and not let go of: now, and at the most. Weights do not count.

    Within a checkpoint torch has hooks of its own: what is computed again, one step at a time, shows in ``LiveBytes``.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0
        super().__init__(self._pack, lambda box: box.value)

    def _pack(self, value: Tensor) -> _Box:
        box, size = _Box(value), 0 if isinstance(value, nn.Parameter) else value.numel() * value.element_size()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(box, self._release, size)
        return box

    def _release(self, size: int) -> None:
        self.now -= size


class _Box:
    def __init__(self, value: Tensor) -> None:
        self.value = value


def pulled_back(decoder: Any, num_rows: int, chunk: int) -> dict[str, int]:
    """``saved_bytes`` and ``live_bytes`` of a pull-back through ``latentdc.latents.decoded``, ``chunk`` rows at a time.

    There are more rows than fit a chunk, so the pull-back is the second forward and its backward.
    """
    prior = decoder.prior(torch.zeros(num_rows, dtype=torch.int64), stream(0, "bench-memory"))
    bank = LatentBank.of(prior, [num_rows])
    saved, live = SavedBytes(), LiveBytes()
    with saved, live, decoded(decoder, bank, bank.rows(), chunk) as syn:
        syn.x.square().sum().backward()
    return {"saved_bytes": saved.peak, "live_bytes": live.peak}


def growth(decoder: Any, rows: int) -> int:
    """Bytes that more rows may add: their own latents and images, the gradients of both, and half as much again."""
    numbers = sum(value.numel() for value in decoder.prior(torch.zeros(1, dtype=torch.int64), stream(0, "z")).values())
    return 4 * 3 * rows * (numbers + torch.Size(decoder.image_shape).numel())
