"""Who computes what of a step: classes are shared out over processes, and over passes that fit the memory."""

# The functions of accelerate carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor

from latentdc.devices import free_bytes

_PIXELS_AT_ONCE = {"cpu": 2**20}
"""Pixels whose graph through a network is alive at a time: a thousand images of 32 x 32 pixels, some 3 GB. More at a
time is no faster on a CPU."""
_BYTES_PER_PIXEL = 3000
"""Of that graph, of a ConvNet of 128 channels in bf16; where the limit is what memory is free, half of it."""


def share(num_classes: int, accelerator: Accelerator) -> list[int]:
    """This process's classes, a contiguous block; empty where there are more processes than classes."""
    blocks = torch.arange(num_classes).tensor_split(accelerator.num_processes)
    return [int(c) for c in blocks[accelerator.process_index]]


def passes(classes: Sequence[int], counts: Sequence[int], pixels: int, device: torch.device) -> list[list[int]]:
    """Classes in blocks, each small enough for its graph to fit; of equal size but the last, for few compiled shapes.

    The loss is a sum over classes and each row belongs to one, so that the gradient is that of a single pass. Where one
    class is too large, it stays whole.

    Args:
        classes: this process's classes.
        counts: training images of each of them.
        pixels: of one image.
        device: where the networks run.
    """
    if not classes:
        return []
    limit = _PIXELS_AT_ONCE.get(device.type) or free_bytes(device) // (2 * _BYTES_PER_PIXEL)
    # As many blocks as the largest class asks for, so that unequal classes fit as well.
    size = max(1, int(limit // max(1, max(counts) * pixels)))
    num = math.ceil(len(classes) / size)
    size = math.ceil(len(classes) / num)
    return [list(classes[start : start + size]) for start in range(0, len(classes), size)]


def reduce_sum(learnables: list[Tensor], loss: Tensor, accelerator: Accelerator) -> float:
    """Sum gradients and loss over the processes, in one message; returns the loss of all classes."""
    if accelerator.num_processes == 1:
        return float(loss.detach())
    for parameter in learnables:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    parts = [parameter.grad.reshape(-1) for parameter in learnables if parameter.grad is not None]
    message = torch.cat([*parts, loss.detach().reshape(1).to(parts[0].dtype)])
    summed: Tensor = accelerator.reduce(message, reduction="sum")
    for parameter, piece in zip(learnables, summed[:-1].split([p.numel() for p in parts]), strict=True):
        parameter.grad = piece.view_as(parameter).clone()
    return float(summed[-1])
