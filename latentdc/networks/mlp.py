"""The multilayer perceptron of the literature's cross-architecture tables."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from latentdc.networks.base import Network
from latentdc.types import DataSpec, Observation


class MLP(Network):
    """Three linear layers with ReLU between them, on the flattened standardised image.

    Features: the two hidden layers after ReLU, ``(n, width)`` each; the second is the embedding.

    Args:
        spec: the data.
        width: hidden units, 128 if None.

    *Reference:* Zhao, Mopuri & Bilen 2021, arXiv 2006.05929, appendix (MLP of the cross-architecture table).
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2021dc",)

    def __init__(self, spec: DataSpec, *, width: int | None = None) -> None:
        super().__init__(spec, width=width)
        channels, height, wide = spec.image_shape
        width = width or 128
        self.first = nn.Linear(channels * height * wide, width)
        self.second = nn.Linear(width, width)
        self.classifier = nn.Linear(width, spec.num_classes)

    def observe(self, x: Tensor) -> Observation:
        """Hidden layers ``(n, width)`` and logits ``(n, k)``."""
        first = self.first(self.standardise(x).flatten(1)).relu()
        second = self.second(first).relu()
        return Observation(self.classifier(second), (first, second))
