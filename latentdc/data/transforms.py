"""The six transforms of siamese augmentation on standardised images, each from explicit parameters.

Every function takes images ``(n, c, h, w)`` and parameters of one row (shared by all images) or n rows, is
differentiable in the images, and fills with 0, which is the data set's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Params = Mapping[str, Tensor]


def _column(param: Tensor, x: Tensor) -> Tensor:
    """A parameter ``(n,)`` as ``(n, 1, 1, 1)`` in the type and on the device of the images."""
    return param.to(x.device, x.dtype).view(-1, 1, 1, 1)


def color(x: Tensor, params: Params) -> Tensor:
    """Brightness, then saturation, then contrast.

    ``x + b``; ``m + (x − m) s``, m the mean over channels of each pixel; ``m + (x − m) t``, m the mean of the image.
    """
    x = x + _column(params["brightness"], x)
    if x.shape[1] > 1:  # a grey pixel is its own channel mean
        grey = x.mean(1, keepdim=True)
        x = torch.lerp(grey.expand_as(x), x, _column(params["saturation"], x))
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * _column(params["contrast"], x)


def crop(x: Tensor, params: Params) -> Tensor:
    """Whole-pixel translation: output (i, j) is input (i + down, j + right), 0 outside."""
    down, right = params["down"], params["right"]
    height, width = x.shape[2:]
    if len(down) == 1:
        dy, dx = int(down), int(right)
        return F.pad(x, (-dx, dx, -dy, dy))
    rows = down.to(x.device)[:, None] + torch.arange(height, device=x.device)
    cols = right.to(x.device)[:, None] + torch.arange(width, device=x.device)
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((cols >= 0) & (cols < width))[:, None, None, :]
    rows, cols = rows.clamp(0, height - 1), cols.clamp(0, width - 1)
    x = x.gather(2, rows[:, None, :, None].expand_as(x)).gather(3, cols[:, None, None, :].expand_as(x))
    return x * inside


def cutout(x: Tensor, params: Params) -> Tensor:
    """A rectangle of 0, ``height`` by ``width``, around (``row``, ``col``), clipped at the borders."""
    rows = _covered(params["row"], params["height"], x.shape[2]).to(x.device)
    cols = _covered(params["col"], params["width"], x.shape[3]).to(x.device)
    return x.masked_fill(rows[:, None, :, None] & cols[:, None, None, :], 0)


def _covered(centre: Tensor, extent: Tensor, size: int) -> Tensor:
    """Which of ``size`` pixels lie within ``extent`` pixels around each centre: bool ``(n, size)``."""
    start = (centre - extent // 2)[:, None]
    line = torch.arange(size)
    return (line >= start) & (line < start + extent[:, None])


def flip(x: Tensor, params: Params) -> Tensor:
    """Horizontal mirror where ``flip`` is 1."""
    flags = params["flip"]
    if len(flags) == 1:
        return x.flip(3) if bool(flags) else x
    return torch.where(flags.to(x.device).bool().view(-1, 1, 1, 1), x.flip(3), x)


def scale(x: Tensor, params: Params) -> Tensor:
    """Affine map about the centre: output point (u, v) reads input (``across`` u, ``down`` v); below 1 enlarges."""
    across, down = params["across"], params["down"]
    zero = torch.zeros_like(across)
    return _affine(x, torch.stack([across, zero, zero, down], 1))


def rotate(x: Tensor, params: Params) -> Tensor:
    """Rotation about the centre by ``degrees``; a right angle stays one on images that are not square."""
    angle = params["degrees"].double().deg2rad()
    cos, sin, ratio = angle.cos(), angle.sin(), x.shape[2] / x.shape[3]
    return _affine(x, torch.stack([cos, -sin * ratio, sin / ratio, cos], 1))


def _affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear resampling with zero padding (``align_corners=False``); ``matrix`` is (n or 1, 4), row-major."""
    theta = torch.zeros(len(matrix), 2, 3, device=x.device, dtype=x.dtype)
    theta[:, :, :2] = matrix.to(x.device, x.dtype).view(-1, 2, 2)
    grid = F.affine_grid(theta, [len(theta), *x.shape[1:]], align_corners=False)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), "bilinear", "zeros", align_corners=False)


TRANSFORMS: dict[str, Callable[[Tensor, Params], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
