"""Encoded images → one uint8 tensor, decoded one at a time into their final place."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentdc.errors import DataError

HOW_IT_RESIZES = "the shorter side to that many pixels (bilinear, antialiased), then the central square"
_GREY_MODES = frozenset({"1", "L", "LA"})
_DEEP_MODES = ("I", "F")


class Split(NamedTuple):
    """Images ``(n, c, h, w)`` uint8 and labels ``(n,)`` int64."""

    images: Tensor
    labels: Tensor


class Raw(NamedTuple):
    """What a reader found, before classes are chosen and statistics are computed."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split | None


def open_image(source: Path | bytes, origin: str) -> Image.Image:
    """A decoded PIL image in mode ``L`` or ``RGB`` (transparency is dropped).

    Raises:
        DataError: the bytes are not an image, are truncated, or have more than 8 bits per channel.
    """
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            mode = image.mode
            if not mode.startswith(_DEEP_MODES):
                return image.convert("L" if mode in _GREY_MODES else "RGB")
    except Exception as error:  # Pillow's readers of damaged files raise whatever their parsing trips over.
        raise DataError(f"{origin}: not a readable image ({error}). Replace or remove it.") from error
    raise DataError(f"{origin}: pixel mode {mode}; convert it to 8 bits per channel.")


def fit(image: Image.Image, size: int | None) -> Image.Image:
    """The shorter side resized to ``size`` pixels (bilinear, antialiased), then the central square; None: unchanged."""
    if size is None or image.size == (size, size):
        return image
    ratio = size / min(image.size)
    width, height = (max(round(side * ratio), size) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


class ImageStack:
    """A uint8 tensor ``(num, c, h, w)`` filled image by image; its shape comes from the first one.

    Grey images become colour when a colour image is among them.

    Args:
        num: how many images will be put.
        size: side to resize to, or None.
        like: ``(c, h, w)`` that is required (of a training set), or None.
    """

    def __init__(self, num: int, size: int | None, like: tuple[int, int, int] | None = None) -> None:
        self.size = size
        self._num = num
        self._fixed = like is not None
        self._images = torch.empty((num, *like), dtype=torch.uint8) if like else None

    @property
    def images(self) -> Tensor:
        """The filled tensor.

        Raises:
            DataError: nothing was put.
        """
        if self._images is None:
            raise DataError("there is no image to read.")
        return self._images

    def put(self, slot: int, image: Image.Image, origin: str) -> None:
        """Write one ``L`` or ``RGB`` image to its slot.

        Raises:
            DataError: another height or width than the images before it, or colour where grey is required.
        """
        image = fit(image, self.size)
        channels = len(image.getbands())
        if self._images is None:
            self._images = torch.empty((self._num, channels, image.height, image.width), dtype=torch.uint8)
        have = self._images.shape
        if have[2:] != (image.height, image.width):
            raise DataError(
                f"{origin}: {image.width} x {image.height} pixels, where those before it have {have[3]} x {have[2]}. "
                f"Give --size N to bring all images to one size: {HOW_IT_RESIZES}."
            )
        if channels > have[1]:
            if self._fixed:
                raise DataError(f"{origin}: a colour image, but the training images are grey. Convert it to grey.")
            self._images = self._images.repeat(1, 3, 1, 1)
        if channels < self._images.shape[1]:
            image = image.convert("RGB")
        array = np.array(image).reshape(image.height, image.width, -1)
        self._images[slot] = torch.from_numpy(array).permute(2, 0, 1)


def resize(images: Tensor, size: int | None) -> Tensor:
    """uint8 images ``(n, c, h, w)``, c = 1 or 3, brought to ``size`` as ``fit`` does."""
    if size is None or images.shape[2:] == (size, size):
        return images
    stack = ImageStack(len(images), size)
    for row, image in enumerate(images):
        array = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        stack.put(row, Image.fromarray(array.numpy()), f"image {row}")
    return stack.images
