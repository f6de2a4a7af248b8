"""The logits of a network as points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.representations.base import in_full
from latentdc.types import EMBEDDING, Batch, Net, Part


@dataclass(frozen=True)
class Logits:
    """Class scores ``(n, k)`` of each image before the softmax, at least float32 whatever the network ran in.

    *Reference:* Wang et al. 2023, "DiM: Distilling Dataset into Generative Model", arXiv 2303.04707.
    """

    kind: ClassVar[str] = "points"
    cite: ClassVar[tuple[str, ...]] = ("wang2023dim",)
    needs: ClassVar[frozenset[Part]] = EMBEDDING
    needs_classifier: ClassVar[bool] = True

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """One tensor: the logits."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return (in_full(net.observe(batch.x).logits),)
