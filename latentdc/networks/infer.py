"""Batched looks through a network without gradients: accuracy and embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.networks.base import Network
from latentdc.networks.compiled import observer, precision_context
from latentdc.types import EMBEDDING, Observation


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1] (divided by 255); float images are returned as they are."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def device_of(network: torch.nn.Module) -> torch.device:
    """Device of a network's first parameter, the CPU if it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def observations(
    network: Network, images: Tensor, *, batch_size: int = 500, precision: str = "fp32", compile: bool = False
) -> Iterator[Observation]:
    """Embedding and class scores of each batch in turn: eval mode, no gradients, on the network's device.

    Args:
        network: any network; its mode is restored at the end.
        images: ``(n, c, h, w)``, uint8 or float in [0, 1], on any device; cast and moved one batch at a time.
        batch_size: images at a time.
        precision: ``"fp32"`` or ``"bf16"`` (autocast).
        compile: see ``latentdc.networks.compiled.observer``.

    Raises:
        InputError: wrong precision, or a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: at least 1")
    device = device_of(network)
    observe = observer(compile=compile, device=device, parts=EMBEDDING)
    was_training = network.training
    network.eval()
    try:
        for start in range(0, len(images), batch_size):
            with torch.no_grad(), precision_context(precision, device):
                shown = observe(network, to_float(images[start : start + batch_size].to(device)))
            yield shown.only(EMBEDDING)
    finally:
        network.train(was_training)


def accuracy(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 500,
    precision: str = "fp32",
    compile: bool = False,
) -> float:
    """Share of images whose largest logit is the label's, in per cent.

    Args:
        network: the classifier.
        images: ``(n, c, h, w)``, uint8 or float in [0, 1].
        labels: int64 classes ``(n,)``.
        batch_size: images at a time.
        precision: ``"fp32"`` or ``"bf16"``.
        compile: see ``latentdc.networks.compiled.observer``.

    Raises:
        InputError: no images, or not one label per image.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise InputError(f"accuracy of {len(images)} images with {len(labels)} labels: give some images, each a label")
    seen = observations(network, images, batch_size=batch_size, precision=precision, compile=compile)
    guesses = torch.cat([shown.logits.argmax(1) for shown in seen])
    return 100.0 * float((guesses.cpu() == labels.cpu()).double().mean())


def embed(
    network: Network,
    images: Tensor,
    *,
    batch_size: int = 500,
    precision: str = "fp32",
    compile: bool = False,
) -> Tensor:
    """Embeddings ``(n, d)`` of images, float32 on the CPU, one batch at a time and without gradients.

    Args:
        network: any network.
        images: ``(n, c, h, w)``, uint8 or float in [0, 1].
        batch_size: images at a time.
        precision: ``"fp32"`` or ``"bf16"``.
        compile: see ``latentdc.networks.compiled.observer``.

    Raises:
        InputError: no images.
    """
    if len(images) == 0:
        raise InputError("embed: no images given")
    seen = observations(network, images, batch_size=batch_size, precision=precision, compile=compile)
    return torch.cat([shown.last.float().cpu() for shown in seen])
