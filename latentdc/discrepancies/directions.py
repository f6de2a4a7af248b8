"""Seeded random vectors, drawn once and kept: frequencies of waves, directions of lines."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=8)
def normal_vectors(seed: int, dim: int, num: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draws from N(0, I) as columns ``(dim, num)``: the same numbers whatever the dtype and device."""
    drawn = torch.randn(dim, num, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(device, dtype)


@functools.lru_cache(maxsize=8)
def unit_vectors(seed: int, dim: int, num: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uniform draws from the unit sphere as columns ``(dim, num)``."""
    drawn = normal_vectors(seed, dim, num, torch.float64, torch.device("cpu"))
    return torch.nn.functional.normalize(drawn, dim=0).to(device, dtype)
