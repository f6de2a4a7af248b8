"""Starts that cluster the real images of each class where the decoder's latents are, not in pixels or features."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.clusters import kmeans, medoids
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.initialise.mixture import mixture
from latentdc.initialise.request import Request, chosen, encoded, encoder_of, store_of
from latentdc.networks.infer import to_float
from latentdc.seeding import stream
from latentdc.types import Batch, Latents

Centring = Callable[[Tensor, int, torch.Generator], Tensor]
"""(points ``(n, d)``, number, rng) → centres ``(number, d)``."""


def class_latents(request: Request, kind: str, store: ClassStore, cls: int) -> Tensor:
    """Latents of all real images of one class, all keys side by side ``(n, d)``, on the CPU.

    Raises:
        InputError: the decoder has no encoder.
    """
    found = [
        encoded(request, kind, to_float(x), torch.full((len(x),), cls)) for x in torch.split(store.of_class(cls), 256)
    ]
    return torch.cat([torch.cat([part[name].flatten(1) for name in sorted(part)], 1) for part in found])


def unflat(points: Tensor, latent_shapes: Mapping[str, Sequence[int]]) -> Latents:
    """Latents by key of rows ``(n, d)`` in the layout of ``class_latents``."""
    shapes = {name: tuple(latent_shapes[name]) for name in sorted(latent_shapes)}
    parts = torch.split(points, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def one_image_per_row(request: Request, kind: str) -> None:
    """Refuse a formation that packs several images into a row.

    Raises:
        InputError: saying which starts would do.
    """
    if request.images_per_row > 1:
        raise InputError(
            f'init = "{kind}" puts the latent of one image into each row, and {type(request.formation).__name__} packs '
            f'{request.images_per_row} images into one: use init = "latent-medoids" or "real", or no formation.'
        )


def class_centres(
    request: Request, kind: str, of: Centring, points_of: Callable[[ClassStore, int], Tensor]
) -> list[Tensor]:
    """Centres ``(rows of the class, d)`` of each class's points ``(n, d)``, class after class; keyed by the class.

    Raises:
        InputError: no data, a formation that packs, or a class with fewer images than rows.
    """
    one_image_per_row(request, kind)
    store, found = store_of(request, kind), []
    for cls, num in enumerate(request.counts):
        points = points_of(store, cls) if num else torch.zeros(0)
        _enough(kind, num, len(points))
        found.append(of(points, num, stream(request.seed, f"init-{kind}", index=cls)) if num else points)
    return found


def _encoded_centres(request: Request, kind: str, of: Centring) -> Latents:
    encoder_of(request, kind)
    found = class_centres(request, kind, of, lambda store, cls: class_latents(request, kind, store, cls))
    return unflat(torch.cat([each for each in found if len(each)]), request.decoder.latent_shapes)


def by_size(points: Tensor, num: int, rng: torch.Generator) -> Tensor:
    """Centres of k-means ``(num, d)`` over points ``(n, d)``, largest cluster first."""
    centres = kmeans(points, num, rng)
    sizes = torch.bincount(torch.cdist(points, centres).argmin(1), minlength=num)
    return centres[sizes.argsort(descending=True, stable=True)]


def by_weight(points: Tensor, num: int, rng: torch.Generator, *, iterations: int = 50) -> Tensor:
    """Means of a Gaussian mixture ``(num, d)`` over points ``(n, d)``, heaviest component first."""
    return mixture(points, num, rng, iterations=iterations).means


CENTRES: dict[str, Centring] = {"k-means": by_size, "mixture": by_weight}


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
        return _encoded_centres(request, "centroids", by_size)


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
        return _encoded_centres(request, "mixture", partial(by_weight, iterations=self.iterations))


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
