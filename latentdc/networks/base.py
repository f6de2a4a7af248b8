"""What every network has in common: it normalises inside, and one pass shows its features and its logits."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from latentdc.errors import InputError, unknown
from latentdc.resources import own_class
from latentdc.seeding import global_seed
from latentdc.types import DataSpec, Observation

ARCHITECTURES: dict[str, str] = {
    "convnet": "latentdc.networks.convnet:ConvNet",
    "resnet18": "latentdc.networks.resnet:ResNet18",
    "mlp": "latentdc.networks.mlp:MLP",
}
"""Architectures by name; ``module:class`` so that a network's own imports happen only when it is built."""


class Network(nn.Module):
    """A classifier of images in [0, 1] that standardises them itself: ψ(x) with x ← (x − mean) / std.

    A subclass sets its layers in ``__init__(spec, *, width=None)`` and implements ``observe``.

    Args:
        spec: shape, classes, mean and standard deviation of the data.
        width: channels or hidden units asked for, None for the published ones; each subclass says what it means.
    """

    cite: ClassVar[tuple[str, ...]] = ()
    mean: Tensor
    std: Tensor
    accuracy: float | None = None
    """Share of real images it classifies right, in [0, 1], where a pool has measured it."""

    def __init__(self, spec: DataSpec, *, width: int | None = None) -> None:
        super().__init__()
        self.width = width
        channels = spec.image_shape[0]
        if len(spec.mean) != channels or len(spec.std) != channels:
            raise InputError(
                f'data "{spec.name}" has {channels} channels but {len(spec.mean)} means and {len(spec.std)} standard '
                "deviations; give one of each per channel in its DataSpec"
            )
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32).view(1, -1, 1, 1))

    def standardise(self, x: Tensor) -> Tensor:
        """(x − mean) / std per channel; ``(n, c, h, w)`` in, the same out."""
        return (x - self.mean) / self.std

    def observe(self, x: Tensor) -> Observation:
        """Features of every depth and logits.

        Args:
            x: float images ``(n, c, h, w)``, nominally [0, 1]; receives a gradient if it requires one.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement observe(x) -> Observation")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)`` in [0, 1]."""
        return self.observe(x).logits


def resolve(arch: str) -> type[Network]:
    """The class of an architecture.

    Args:
        arch: a name of ``ARCHITECTURES`` or ``"package.module:Class"``.

    Raises:
        InputError: there is no such thing, or it is no network.
    """
    path = ARCHITECTURES.get(arch, arch)
    if ":" not in path:
        raise InputError(unknown("architecture", arch, ARCHITECTURES) + ' One of your own: "package.module:Class".')
    try:
        found = own_class(path)
    except InputError as error:
        raise InputError(f"architecture {error}") from error
    if not issubclass(found, Network):
        raise InputError(f'architecture "{arch}": {path} is not a subclass of latentdc.networks.base.Network')
    return found


def build(
    arch: str,
    spec: DataSpec,
    *,
    seed: int,
    index: int = 0,
    width: int | None = None,
    purpose: str = "network",
) -> Network:
    """A freshly initialised network, a pure function of the arguments: initialised on the CPU whatever runs it later.

    Args:
        arch: a name of ``ARCHITECTURES`` or ``"package.module:Class"``, a subclass of ``Network``.
        spec: the data it will see.
        seed: the run's seed.
        index: which of the run's networks.
        width: channels (or hidden units); None is the architecture's published width.
        purpose: name of the random stream; pools use another one than students, so that they never share a network.

    Raises:
        InputError: unknown architecture, a width below 1, or images the architecture cannot take.
    """
    if width is not None and width < 1:
        raise InputError(f"width = {width}: a network needs at least 1 channel; leave it out for the published width")
    constructor = resolve(arch)
    with global_seed(seed, purpose, index=index):
        return constructor(spec, width=width)
