"""The features of a network as points, optionally shrunk by a seeded random projection."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.representations.base import in_full
from latentdc.types import Batch, Net


@functools.lru_cache(maxsize=8)
def _projection(seed: int, wide: int, narrow: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(wide, narrow, generator=rng, dtype=torch.float64) / math.sqrt(narrow)


@dataclass(frozen=True)
class Features:
    """Features of each image, flattened to ``(n, d)``, at least float32 whatever precision the network ran in.

    With ``project = d'`` each layer wider than d' is multiplied by one fixed matrix ``R (d, d')``, entries
    N(0, 1/d'), the same on both sides: squared distances are kept within a relative error of about ``sqrt(8 / d')``
    (Johnson and Lindenstrauss) and a sketch shrinks by d / d'.
    """

    kind: ClassVar[str] = "points"
    cite: ClassVar[tuple[str, ...]] = ("zhao2023dm",)

    layer: str = "last"
    """``"last"``: the embedding the classifier reads; ``"all"``: every depth, one tensor each."""
    project: int | None = None
    """Dimensions to keep per layer, or None for all."""
    seed: int = 0
    """Seed of the projection."""

    def __post_init__(self) -> None:
        if self.layer not in ("last", "all"):
            raise InputError(f'see.layer = "{self.layer}": give "last" or "all"')
        if self.project is not None and self.project < 1:
            raise InputError(f"see.project = {self.project}: give a positive number of dimensions, or leave it out")

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Points of each chosen layer."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            seen = net.observe(batch.x)
            layers = (seen.last,) if self.layer == "last" else seen.features
            return tuple(self._shrink(layer.flatten(1)) for layer in layers)

    def _shrink(self, points: Tensor) -> Tensor:
        points = in_full(points)
        if self.project is None or points.shape[1] <= self.project:
            return points
        # Autocast would run this product in half precision and lose what the cast above saved.
        with torch.autocast(points.device.type, enabled=False):
            return points @ _projection(self.seed, points.shape[1], self.project).to(points)
