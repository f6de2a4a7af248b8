"""CutMix: a rectangle of each image of a mini-batch is exchanged for that of another, and their labels are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.errors import InputError


@dataclass(frozen=True)
class CutMix:
    """Mixes a mini-batch ``x (n, c, h, w)``, ``y (n, k)`` with a permutation π of itself.

    ``x_i ← x_i`` outside one rectangle, ``x_π(i)`` inside; ``y_i ← λ y_i + (1 − λ) y_π(i)``, λ the share of the area
    outside. The rectangle has sides ``√(1 − u)`` of the image's, u ~ U(0, 1), its centre is uniform, and what stands
    over the border is cut off.

    *Reference:* Yun et al. 2019, arXiv 1905.04899, §3.1 with α = 1; used with probability ½ by Kim et al. 2022 (IDC).

    Args:
        probability: that a call mixes at all.

    Raises:
        InputError: a probability outside (0, 1].
    """

    cite: ClassVar[tuple[str, ...]] = ("yun2019cutmix",)

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise InputError(f"cut_mix = {self.probability}: give a probability above 0 and at most 1")

    def __call__(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixed images and targets; the same objects where the draw leaves them alone."""
        draw = torch.rand(4, generator=rng, dtype=torch.float64).tolist()
        order = torch.randperm(len(x), generator=rng).to(x.device)
        if draw[0] >= self.probability:
            return x, y
        height, width = x.shape[2:]
        rows, cols = (_span(size, share, draw[1]) for size, share in ((height, draw[2]), (width, draw[3])))
        mixed = x.clone()
        mixed[:, :, rows, cols] = x[order][:, :, rows, cols]
        outside = 1 - (rows.stop - rows.start) * (cols.stop - cols.start) / (height * width)
        return mixed, outside * y + (1 - outside) * y[order]


def _span(size: int, centre: float, u: float) -> slice:
    """The rectangle along one axis, within the image."""
    side, middle = int(size * (1 - u) ** 0.5), int(size * centre)
    return slice(max(middle - side // 2, 0), min(middle + side // 2, size))
