"""A seeded random projection: fewer numbers, and nearly the same distances, lengths and angles."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from latentdc.errors import InputError


@functools.lru_cache(maxsize=8)
def _matrix(seed: int, wide: int, narrow: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(wide, narrow, generator=rng, dtype=torch.float64) / math.sqrt(narrow)


def must_project(num: int | None) -> None:
    """Refuse a projection to no number at all.

    Raises:
        InputError: ``num`` is below 1.
    """
    if num is not None and num < 1:
        raise InputError(f"see.project = {num}: give a positive number of dimensions, or leave it out")


def projected(points: Tensor, num: int | None, seed: int) -> Tensor:
    """The last axis of ``(…, d)`` multiplied by one fixed matrix ``(d, num)``, entries N(0, 1/num), where d is wider.

    Squared distances are kept within a relative error of about ``sqrt(8 / num)`` (Johnson and Lindenstrauss).
    """
    if num is None or points.shape[-1] <= num:
        return points
    # Autocast would run this product in half precision and lose what was kept in full so far.
    with torch.autocast(points.device.type, enabled=False):
        return points @ _matrix(seed, points.shape[-1], num).to(points)
