"""The features of a network as points, optionally shrunk by a seeded random projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.representations.base import in_full
from latentdc.representations.projection import must_project, projected
from latentdc.types import EMBEDDING, Batch, Net, Part

_NEEDS: dict[str, frozenset[Part]] = {
    "last": EMBEDDING,
    "all": frozenset({"features"}),
    "maps": frozenset({"maps"}),
}


@dataclass(frozen=True)
class Features:
    """Features of each image, flattened to ``(n, d)``, at least float32 whatever precision the network ran in.

    With ``project = d'`` each layer wider than d' is multiplied by one fixed matrix ``R (d, d')``, entries
    N(0, 1/d'), the same on both sides: squared distances are kept within a relative error of about ``sqrt(8 / d')``
    (Johnson and Lindenstrauss) and a sketch shrinks by d / d'.

    Raises:
        InputError: an unknown layer, or a projection to less than one number; when called, ``"maps"`` of a network that
            shows none.

    *Reference:* Zhao and Bilen 2023, "Dataset Condensation with Distribution Matching", arXiv 2110.04181, eq. 4;
    ``layer = "maps"``: Wang et al. 2022 (CAFE), arXiv 2203.01531.
    """

    kind: ClassVar[str] = "points"
    cite: ClassVar[tuple[str, ...]] = ("zhao2023dm",)

    layer: str = "last"
    """``"last"``: the embedding the classifier reads; ``"all"``: every depth, one tensor each; ``"maps"``: what is
    pooled at every depth, and then the embedding."""
    project: int | None = None
    """Dimensions to keep per layer, or None for all."""
    seed: int = 0
    """Seed of the projection."""

    @classmethod
    def cite_for(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``cite``, and whose idea the options are."""
        return (*cls.cite, *(("wang2022cafe",) if options.get("layer") == "maps" else ()))

    def __post_init__(self) -> None:
        if self.layer not in _NEEDS:
            raise InputError(f'see.layer = "{self.layer}": give "last", "all" or "maps"')
        must_project(self.project)

    @property
    def needs(self) -> frozenset[Part]:
        """What it looks at besides the embedding."""
        return _NEEDS[self.layer]

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Points of each chosen layer."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            seen = net.observe(batch.x)
            if self.layer == "maps" and not seen.maps:
                raise InputError(
                    'see.layer = "maps" looks at what is pooled at every depth, of which this network tells nothing: '
                    'use a convolutional one, such as source.arch = "convnet", or see.layer = "all".'
                )
            layers = {"last": (seen.last,), "all": seen.features, "maps": (*seen.maps, seen.last)}[self.layer]
            return tuple(projected(in_full(layer.flatten(1)), self.project, self.seed) for layer in layers)
