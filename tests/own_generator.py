"""Somebody's generator, which knows nothing of latentdc: named as ``own_generator:Generator``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """z of 4 numbers (and ``classes`` of a one-hot class) → images (1, 8, 8) in (-1, 1)."""

    def __init__(self, classes: int = 0, width: int = 16) -> None:
        super().__init__()
        if width < 1:
            raise ValueError("width must be at least 1")
        self.first = nn.Linear(4 + classes, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, 64)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = z if label is None else torch.cat([z, label], dim=1)
        return self.last(torch.nn.functional.silu(self.norm(self.first(x)))).tanh().unflatten(1, (1, 8, 8))


class Sealed(nn.Module):
    """A generator all of whose weights lie under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)
