"""The ConvNet restated as a formula on plain tensors, to compare the module with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def forward(state: Mapping[str, Tensor], x: Tensor, *, depth: int, first_padding: int) -> tuple[Tensor, Tensor]:
    """Embedding and logits from a state dict."""
    x = (x - state["mean"]) / state["std"]
    for number in range(depth):
        padding = first_padding if number == 0 else 1
        x = functional.conv2d(x, state[f"blocks.{number}.0.weight"], state[f"blocks.{number}.0.bias"], padding=padding)
        x = instance_norm(x, state[f"blocks.{number}.1.weight"], state[f"blocks.{number}.1.bias"])
        x = x.clamp_min(0)
        height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        x = x[..., :height, :width]
        x = (x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4
    embedding = x.flatten(1)
    return embedding, embedding @ state["classifier.weight"].T + state["classifier.bias"]
