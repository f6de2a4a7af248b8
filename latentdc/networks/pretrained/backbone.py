"""A network that others trained: it shows features, and knows no classes of the data at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.networks.base import Network
from latentdc.networks.pretrained.seeing import Seeing
from latentdc.types import DataSpec, Observation


class Unclassified(Observation):
    """What a network without a classifier shows: features alone."""

    __slots__ = ()

    @property
    def logits(self) -> NoReturn:
        """There are none.

        Raises:
            InputError: always.
        """
        raise InputError(
            "class scores were asked of a pretrained network, which knows no classes of these data: look at its "
            'features (objective.see = "features"), or use another pool (source.pool).'
        )


class Backbone(Network):
    """A frozen network that others trained, seeing images as its own library shows them to it.

    Features: of each depth the mean of its map over all positions ``(n, d)``, or with ``maps`` the map itself
    ``(n, d, h, w)``, which it then tells of as its maps; then the embedding ``(n, d)``. No class scores: asking for
    them raises. Its mean and standard deviation are its own, not those of the data.

    Args:
        spec: the data it will see.
        seeing: the size, mean and standard deviation it was trained with.
        maps: show maps.
    """

    def __init__(self, spec: DataSpec, seeing: Seeing, *, maps: bool) -> None:
        super().__init__(spec)
        self.seeing, self.maps = seeing, maps
        self.mean, self.std = (torch.tensor(each).view(1, -1, 1, 1) for each in (seeing.mean, seeing.std))
        # As a buffer it is part of the fingerprint: the same weights at another size are another network.
        self.register_buffer("geometry", torch.tensor([*seeing.numbers(), int(maps)]))

    def look(self, x: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Maps ``(n, d, h, w)`` from shallow to deep, and the embedding ``(n, d)``, of images as it sees them."""
        raise NotImplementedError(f"{type(self).__name__} must implement look(x) -> (maps, embedding)")

    def observe(self, x: Tensor) -> Observation:
        """Features of every depth and the embedding of images ``(n, c, h, w)`` in [0, 1]."""
        seen = self.standardise(self.seeing.frame(x))
        maps, embedding = self.look(seen)
        depths = maps if self.maps else [each.mean((2, 3)) for each in maps]
        return Unclassified(embedding.new_empty(len(x), 0), (*depths, embedding), tuple(maps) if self.maps else ())

    def blank(self) -> Tensor:
        """One black image as the backbone sees it, to try it on."""
        return torch.zeros(1, len(self.seeing.mean), *self.seeing.side)
