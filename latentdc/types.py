"""Glossary of the hourglass: the few types that both halves of latentdc share.

Shape language: n rows or images, k classes, s stored rows, d features, c h w an image.
Images at the waist are float tensors, nominally in [0, 1]; latents are standard-normal-like unless a decoder says
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Latents = dict[str, Tensor]
"""One named tensor per latent key, each ``(n, *shape)``."""


class Batch(NamedTuple):
    """Images at the waist of the hourglass; the one type shared by decoders and objectives."""

    x: Tensor
    """Images ``(n, c, h, w)``, float, nominally [0, 1]."""
    y: Tensor
    """Targets ``(n, k)``: a distribution over classes; a hard label is a one-hot row."""
    owner: Tensor
    """Class each row belongs to ``(n,)``, int64 in [0, k); conditions decoders, groups per-class means, shards work."""
    w: Tensor | None = None
    """Weight of each row ``(n,)`` or None for equal weights."""
    row: Tensor | None = None
    """Index of the stored row each image came from ``(n,)`` or None for real data."""

    def at(self, places: Tensor | slice) -> Batch:
        """The images at some places of the batch, and what belongs to them."""
        return Batch(*(None if each is None else each[places] for each in self))  # type: ignore[arg-type]


Part = Literal["features", "maps"]
"""What an observation may show besides the embedding and the class scores."""
EMBEDDING: frozenset[Part] = frozenset()
"""No more than the embedding and the class scores."""
FEATURES: frozenset[Part] = frozenset({"features"})
"""Those of every depth too."""
EVERYTHING: frozenset[Part] = frozenset({"features", "maps"})
"""All that a network shows."""


class Observation(NamedTuple):
    """What one forward pass of a network shows."""

    logits: Tensor
    """Class scores ``(n, k)``."""
    features: tuple[Tensor, ...]
    """Features from shallow to deep; the last one is the embedding ``(n, d)`` the classifier reads."""
    maps: tuple[Tensor, ...] = ()
    """Activations ``(n, c, h, w)`` of every depth before they are pooled, shallow to deep; empty if there are none.

    The last one, pooled and flattened, is the embedding, where a network is built so."""

    @property
    def last(self) -> Tensor:
        """The embedding ``(n, d)`` just before the classifier."""
        return self.features[-1]

    def only(self, parts: frozenset[Part]) -> Observation:
        """Embedding, class scores and these parts: what is held of a pass should be no more than is looked at."""
        features = self.features if "features" in parts else self.features[-1:]
        return self._replace(features=features, maps=self.maps if "maps" in parts else ())


@dataclass(frozen=True)
class DataSpec:
    """What the rest of the library needs to know of a data set, without its images."""

    image_shape: tuple[int, int, int]
    """``(c, h, w)`` of every image."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per-channel mean of the training images in [0, 1]; networks normalise with it, augmentation fills with it."""
    std: tuple[float, ...]
    """Per-channel standard deviation of the training images in [0, 1]."""
    mirror: bool = True
    """Whether a mirrored image keeps its label (False for digits)."""
    name: str = "unnamed"
    fingerprint: str = ""
    """sha256 over the sorted image contents and labels of the training split."""

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return len(self.class_names)


@runtime_checkable
class Net(Protocol):
    """A network as the loop sees it (see ``latentdc.networks.base.Network``)."""

    def observe(self, x: Tensor) -> Observation:
        """Features of every depth and logits for images ``(n, c, h, w)`` in [0, 1]."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """z → images: deterministic, row-independent, differentiable. See ``latentdc.portable``."""

    @property
    def latent_shapes(self) -> Mapping[str, Sequence[int]]:
        """Shape of each latent key for one row, without the row axis."""
        ...

    @property
    def image_shape(self) -> Sequence[int]:
        """``(c, h, w)`` of a decoded image."""
        ...

    def prior(self, owner: Tensor, rng: torch.Generator) -> Latents:
        """One latent per entry of ``owner``, drawn from the decoder's prior."""
        ...

    def __call__(self, z: Latents, owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` in [0, 1] of latents ``(n, *shape)`` for classes ``owner`` ``(n,)``."""
        ...


@runtime_checkable
class Formation(Protocol):
    """Images → more images, after any decoder: ``(n, c, h, w)`` → ``(n * expands, c, h, w)``, row-major."""

    @property
    def expands(self) -> int:
        """How many images one decoded image becomes."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Expand images; image i becomes outputs ``i * expands … (i + 1) * expands - 1``."""
        ...
