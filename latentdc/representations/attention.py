"""Spatial attention maps as points: where a network looks, whatever it sees there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.errors import InputError
from latentdc.representations.base import in_full
from latentdc.types import Batch, Net, Part


@dataclass(frozen=True)
class Attention:
    """Attention map of each image at every depth but the last, of what is pooled there, ``F_l`` ``(n, c, h, w)``.

    ``A_l(x) = a / ‖a‖₂`` with ``a = Σ_channels |F_l(x)|^p`` flattened: one tensor ``(n, h · w)`` for each such depth,
    of unit length before any mean over a class is taken. The embedding, which the last map is pooled to, is not among
    them; DataDAM matches it beside them, which ``features`` shows.

    Raises:
        InputError: a power below 1; when called, a network that shows no maps but the last.

    *Reference:* Sajedi et al. 2023, "DataDAM: Efficient Dataset Distillation with Attention Matching",
    arXiv 2310.00093.
    *Differs from the authors' code:* the power is the paper's p = 4; the released code takes in effect p = 1.
    """

    kind: ClassVar[str] = "points"
    cite: ClassVar[tuple[str, ...]] = ("sajedi2023datadam",)
    needs: ClassVar[frozenset[Part]] = frozenset({"maps"})

    power: float = 4.0
    """p: the larger, the more the strongest responses count."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.power) and self.power >= 1):
            raise InputError(f"see.power = {self.power}: give a finite number of at least 1; the paper's is 4")

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Points of each depth of maps, shallow to deep."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            maps = [in_full(layer) for layer in net.observe(batch.x).maps[:-1]]
            if not maps:
                raise InputError(
                    'see = "attention" looks at maps (n, c, h, w) of every depth but the last, and this network shows '
                    'none: use a convolutional one of at least two depths, such as source.arch = "convnet", or see = '
                    '"features".'
                )
            return tuple(functional.normalize(to_the(layer, self.power).sum(1).flatten(1), dim=1) for layer in maps)


def to_the(x: Tensor, power: float) -> Tensor:
    """``|x|^power``; of the paper's 4 by squaring twice, which takes a third of the time of a general power."""
    return x.square().square() if power == 4 else x.abs().pow(power)
