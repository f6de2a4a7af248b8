"""Starts that cluster the real images of each class where the decoder's latents are, not in pixels or features."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.initialise.medoids import kmeans, medoids
from latentdc.initialise.mixture import mixture
from latentdc.initialise.request import Request, chosen, encoded, encoder_of, store_of
from latentdc.networks.infer import to_float
from latentdc.seeding import stream
from latentdc.types import Batch, Latents


def class_latents(request: Request, kind: str, store: ClassStore, cls: int) -> Tensor:
    """Latents of all real images of one class, all keys side by side ``(n, d)``, on the CPU.

    Raises:
        InputError: the decoder has no encoder.
    """
    images = store.of_class(cls)
    owner = torch.full((len(images),), cls)
    parts = zip(torch.split(images, 256), torch.split(owner, 256), strict=True)
    found = [encoded(request, kind, to_float(x), y) for x, y in parts]
    return torch.cat([torch.cat([part[name].flatten(1) for name in sorted(part)], 1) for part in found])


def unflat(points: Tensor, latent_shapes: Mapping[str, Sequence[int]]) -> Latents:
    """Latents by key of rows ``(n, d)`` in the layout of ``class_latents``."""
    shapes = {name: tuple(latent_shapes[name]) for name in sorted(latent_shapes)}
    parts = torch.split(points, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def _centres(request: Request, kind: str, of: Callable[[Tensor, int, torch.Generator], Tensor]) -> Latents:
    """Centres of each class's latents, as many as it has rows."""
    if request.images_per_row > 1:
        raise InputError(
            f'init = "{kind}" puts the latent of one image into each row, and {type(request.formation).__name__} packs '
            f'{request.images_per_row} images into one: use init = "latent-medoids" or "real", or no formation.'
        )
    encoder_of(request, kind)
    store = store_of(request, kind)
    found = []
    for cls, num in enumerate(request.counts):
        if num:
            points = class_latents(request, kind, store, cls)
            _enough(kind, num, len(points))
            found.append(of(points, num, stream(request.seed, f"init-{kind}", index=cls)))
    return unflat(torch.cat(found), request.decoder.latent_shapes)


def _enough(kind: str, num: int, available: int) -> None:
    if num > available:
        raise InputError(f"{num} {kind} of a class with {available} images: ask for at most {available}.")


@dataclass(frozen=True)
class Centroids:
    """Centres of k-means over the encoded real images of each class, largest cluster first.

    *Reference:* Su et al. 2024, "D4M", arXiv 2407.15138, §3.2 (prototypes in the latent space of an autoencoder).
    """

    cite: ClassVar[tuple[str, ...]] = ("su2024d4m",)

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""

        def of(points: Tensor, num: int, rng: torch.Generator) -> Tensor:
            centres = kmeans(points, num, rng)
            sizes = torch.bincount(torch.cdist(points, centres).argmin(1), minlength=num)
            return centres[sizes.argsort(descending=True, stable=True)]

        return _centres(request, "centroids", of)


@dataclass(frozen=True)
class Mixture:
    """Means of a Gaussian mixture with diagonal covariances over the encoded real images, heaviest component first.

    Args:
        iterations: at most this many passes of expectation maximisation.

    Raises:
        InputError: fewer than one pass.
    """

    iterations: int = 50

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations = {self.iterations}: give at least 1.")

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""

        def of(points: Tensor, num: int, rng: torch.Generator) -> Tensor:
            return mixture(points, num, rng, iterations=self.iterations).means

        return _centres(request, "mixture", of)


@dataclass(frozen=True)
class LatentMedoids:
    """Real images whose latents are nearest the centres of k-means over the latents of their class, encoded."""

    def images(self, request: Request) -> Batch:
        """The real images, packed."""

        def pick(store: ClassStore, cls: int, num: int) -> Tensor:
            points = class_latents(request, "latent-medoids", store, cls)
            _enough("latent-medoids", num, len(points))
            return store.offsets[cls] + medoids(points, num, stream(request.seed, "init-latent-medoids", index=cls))

        encoder_of(request, "latent-medoids")
        return chosen(request, "latent-medoids", pick)

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        batch = self.images(request)
        return encoded(request, "latent-medoids", batch.x, batch.owner)
