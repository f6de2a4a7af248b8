"""The moments of a network's channels as points: what batch normalisation would measure of a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.representations.base import in_full
from latentdc.types import Batch, Net, Part


@dataclass(frozen=True)
class BatchStatistics:
    """Mean of each channel and of its square, over the positions of each image, at every depth.

    One tensor ``(n, 2c)`` for each depth: ``[mean_hw F_l(x), mean_hw F_l(x)²]``; a vector of features has one position.
    Averaged over the images of a class this is ``[E F, E F²]``, the first two moments over images and positions, and
    ``E F² − (E F)²`` is the variance that batch normalisation measures: two sets with equal means of these points have
    equal statistics per class. As points they are additive, so that a sketch can hold those of a whole data set.

    *Reference:* Liu et al. 2023, "Dataset Distillation via the Wasserstein Metric", arXiv 2311.18531 (the
    statistics of each class).
    *Differs from the authors' code:* there the norms ``‖Δ mean‖ + ‖Δ variance‖`` at the input of each batch
    normalisation are summed; with ``by = "mean"`` it is ``‖Δ E F‖² + ‖Δ E F²‖²`` at the network's depths, which is
    zero in the same place.
    """

    kind: ClassVar[str] = "points"
    cite: ClassVar[tuple[str, ...]] = ("liu2025wmdd",)
    needs: ClassVar[frozenset[Part]] = frozenset({"features"})

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Points of each depth, shallow to deep."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return tuple(_moments(in_full(layer)) for layer in net.observe(batch.x).features)


def _moments(layer: Tensor) -> Tensor:
    """``(n, 2c)`` of features ``(n, c, …)``."""
    positions = layer.reshape(*layer.shape[:2], -1)  # (n, c, h · w)
    return torch.cat([positions.mean(2), positions.square().mean(2)], 1)
