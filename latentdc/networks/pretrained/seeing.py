"""How a backbone sees images: the size it was trained at, and its own mean and standard deviation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.errors import InputError
from latentdc.seeding import stream

MODES = ("bilinear", "bicubic")
"""Ways to resize that have a gradient and an antialiased form on tensors."""
_TOLERANCE = 1e-3
"""Largest difference, in standard deviations, from what the backbone's own library makes of an image in float32."""


class Margins(NamedTuple):
    """Pixels to add at the left, right, top and bottom; less than 0 to cut."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Seeing:
    """``(crop(resize(x)) − mean) / std`` for images in [0, 1] of one shape, differentiable.

    Resized by antialiased interpolation without rounding or clamping, cut at the centre or filled up with zeros. Images
    of one channel are shown to all channels of the backbone.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    """Height and width after resizing."""
    margins: Margins
    mode: str

    @property
    def side(self) -> tuple[int, int]:
        """Height and width that the backbone sees."""
        left, right, top, bottom = self.margins
        return self.size[0] + top + bottom, self.size[1] + left + right

    def numbers(self) -> list[int]:
        """What decides the geometry, for a fingerprint."""
        return [*self.size, *self.margins, MODES.index(self.mode)]

    def frame(self, x: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` at the backbone's size, not yet standardised."""
        if x.shape[-2:] != self.size:
            x = functional.interpolate(x, self.size, mode=self.mode, align_corners=False, antialias=True)
        return functional.pad(x, self.margins) if any(self.margins) else x

    def must_agree(self, library: Callable[[Tensor], Tensor], image_shape: tuple[int, int, int], name: str) -> None:
        """Check on a random image that this is what the backbone's own library does.

        Args:
            library: its preprocessing of images ``(1, channels, h, w)`` in [0, 1].
            image_shape: ``(c, h, w)`` of the data.
            name: the model, for the message.

        Raises:
            InputError: the backbone cannot take that many channels, or its library does something else.
        """
        channels = len(self.mean)
        if image_shape[0] not in (1, channels):
            raise InputError(f'"{name}" sees {channels} channels, the images have {image_shape[0]}.')
        x = torch.rand(1, *image_shape, generator=stream(0, "seeing")).expand(-1, channels, -1, -1)
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.std))
        mine, its = (self.frame(x) - mean) / std, library(x)
        if mine.shape != its.shape or not torch.allclose(mine, its, rtol=0, atol=_TOLERANCE):
            raise InputError(
                f'"{name}" prepares its images in a way that latentdc does not know (it resizes, cuts at the centre '
                "and standardises): use a model that does no more."
            )


def resized(height: int, width: int, shortest: int) -> tuple[int, int]:
    """Height and width with a given shortest edge, the longer one rounded down, as both libraries do."""
    if height <= width:
        return shortest, int(shortest * width / height)
    return int(shortest * height / width), shortest


def centred(size: tuple[int, int], side: tuple[int, int], rounded: Callable[[float], int]) -> Margins:
    """Margins that leave ``side`` at the centre of ``size``; what is too small is filled up.

    Args:
        size: height and width before.
        side: height and width after.
        rounded: half of an odd difference, as the library has it: ``round`` or ``int``.
    """

    def ends(before: int, after: int) -> tuple[int, int]:
        if after > before:
            return (after - before) // 2, (after - before + 1) // 2
        start = rounded((before - after) / 2)
        return -start, after - before + start

    return Margins(*ends(size[1], side[1]), *ends(size[0], side[0]))
