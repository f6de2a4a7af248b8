"""Whole image sets through a decoder, as a user would export them: what a decoder can show of the data at best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentdc.decoders.chunks import images_at_once
from latentdc.seeding import stream

_CHUNK = 500
"""Latents that are drawn together."""


@torch.no_grad()
def samples(decoder: Any, owner: Tensor, *, seed: int) -> Tensor:
    """One draw from the decoder's prior per entry of ``owner`` ``(n,)``, as uint8 images ``(n, c, h, w)``."""
    device = _device(decoder)
    parts = []
    for number, classes in enumerate(torch.split(owner, _CHUNK)):
        classes = classes.to(device)
        z = decoder.prior(classes, stream(seed, "samples", number))
        for rows in torch.split(torch.arange(len(classes), device=device), images_at_once(decoder)):
            some = {name: value[rows] for name, value in z.items()}
            parts.append(_exported(decoder(some, classes[rows])))
    return torch.cat(parts)


@torch.no_grad()
def reconstructions(decoder: Any, images: Tensor, owner: Tensor) -> Tensor:
    """Images ``(n, c, h, w)`` uint8 of classes ``owner`` ``(n,)``, encoded and decoded, again as uint8."""
    device, num = _device(decoder), images_at_once(decoder)
    parts = []
    for some, classes in zip(torch.split(images, num), torch.split(owner, num), strict=True):
        x, classes = some.to(device).float() / 255, classes.to(device)
        parts.append(_exported(decoder(decoder.encode(x, classes), classes)))
    return torch.cat(parts)


def _exported(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def _device(decoder: Any) -> torch.device:
    return next((parameter.device for parameter in decoder.parameters()), torch.device("cpu"))
