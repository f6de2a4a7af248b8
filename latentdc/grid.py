"""A picture of labelled images: one row per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from latentdc.errors import InputError

_PADDING = 2


def image_grid(
    images: Tensor, owner: Tensor, class_names: Sequence[str], *, per_class: int = 10, scale: int = 2
) -> Image.Image:
    """A picture with one row per class, the class's name before it and its first images in it.

    Args:
        images: ``(n, c, h, w)`` uint8; images that are neither grey nor RGB are shown as the mean of their channels.
        owner: class of each image ``(n,)``.
        class_names: k names.
        per_class: at most this many images of a class.
        scale: each pixel becomes scale × scale pixels.

    Raises:
        InputError: not uint8, or no images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise InputError(f"image grid of {images.dtype} {tuple(images.shape)}: give uint8 images (n, c, h, w)")
    if images.shape[1] not in (1, 3):
        images = images.float().mean(1, keepdim=True).to(torch.uint8)
    columns = min(per_class, int(torch.bincount(owner, minlength=1).max()))
    _, channels, height, width = images.shape
    cells = torch.full((len(class_names), columns, channels, height, width), 255, dtype=torch.uint8)
    for c in range(len(class_names)):
        mine = images[owner == c][:columns]
        cells[c, : len(mine)] = mine
    large = cells.flatten(0, 1).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(large, nrow=columns, padding=_PADDING, pad_value=255).permute(1, 2, 0).numpy()
    return _labelled(Image.fromarray(grid), class_names, height * scale + _PADDING)


def _labelled(picture: Image.Image, class_names: Sequence[str], row_height: int) -> Image.Image:
    """The picture with class names to the left of its rows."""
    font = ImageFont.load_default(size=max(9, min(16, row_height - 4)))
    names = [name.encode("latin-1", "replace").decode("latin-1") for name in class_names]
    margin = int(max(font.getlength(name) for name in names)) + 10
    canvas = Image.new("RGB", (picture.width + margin, picture.height), "white")
    canvas.paste(picture, (margin, 0))
    draw = ImageDraw.Draw(canvas)
    for c, name in enumerate(names):
        draw.text((margin - 5, c * row_height + row_height / 2), name, fill="black", font=font, anchor="rm")
    return canvas


def save_grid(
    path: str | Path, images: Tensor, owner: Tensor, class_names: Sequence[str], *, per_class: int = 10
) -> Path:
    """Write :func:`image_grid` as PNG, small images enlarged to about 56 pixels, and return its path."""
    scale = max(1, round(56 / max(1, images.shape[-1])))
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images, owner, class_names, per_class=per_class, scale=scale).save(file, format="PNG", optimize=True)
    return file


def save_columns(
    path: str | Path, groups: Mapping[str, Tensor], owner: Tensor, class_names: Sequence[str], *, per_class: int = 5
) -> Path:
    """Write groups of images side by side as PNG, for instance real | inverted | condensed, and return its path.

    Args:
        path: where to write.
        groups: uint8 images ``(n, c, h, w)`` by heading; image i of every group belongs together.
        owner: class of each image ``(n,)``.
        class_names: k names.
        per_class: at most this many images of a class in each group.

    Raises:
        InputError: no group, groups of unequal length, or images that ``image_grid`` refuses.
    """
    sizes = {name: len(images) for name, images in groups.items()}
    if not groups or len({*sizes.values(), len(owner)}) != 1:
        raise InputError(f"columns of {sizes} images for {len(owner)} classes: give groups of one length, one at least")
    width = next(iter(groups.values())).shape[-1]
    scale = max(1, round(56 / max(1, width)))
    grids = [image_grid(images, owner, class_names, per_class=per_class, scale=scale) for images in groups.values()]
    font = ImageFont.load_default(size=14)
    least = max(int(font.getlength(name)) + 10 for name in groups)
    canvas = Image.new("RGB", (sum(max(grid.width, least) for grid in grids), grids[0].height + 22), "white")
    left = 0
    for name, grid in zip(groups, grids, strict=True):
        canvas.paste(grid, (left, 22))
        ImageDraw.Draw(canvas).text((left + max(grid.width, least) / 2, 11), name, fill="black", font=font, anchor="mm")
        left += max(grid.width, least)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(file, format="PNG", optimize=True)
    return file
