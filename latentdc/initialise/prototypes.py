"""Starts for diffusion decoders from centres of clean latents: put under noise, or as modes that noise is drawn to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.decoders.chunks import images_at_once
from latentdc.errors import InputError, unknown
from latentdc.initialise.latent_space import CENTRES, class_centres
from latentdc.initialise.request import Request
from latentdc.networks.infer import to_float
from latentdc.seeding import stream
from latentdc.types import Latents


@dataclass(frozen=True)
class Prototypes:
    """Centres of each class's clean latents under as much noise as the decoder starts with; nothing else is stored.

        z = √ᾱ m + √(1-ᾱ) n      (flow: (1-σ) m + σ n)

    Args:
        centres: ``"k-means"`` (largest cluster first) or ``"mixture"`` (heaviest Gaussian first).

    Raises:
        InputError: other centres; when called, a decoder that is no diffusion model.

    *Reference:* Su et al. 2024, "D4M", arXiv 2407.15138, §3.2. *Differs from the authors' code:* k-means over whole
    classes, not mini-batches.
    """

    cite: ClassVar[tuple[str, ...]] = ("su2024d4m",)
    centres: str = "k-means"

    def __post_init__(self) -> None:
        _check(self.centres)

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        return _started(request, "prototypes", self.centres, "noised")


@dataclass(frozen=True)
class Modes:
    """Noise, after the steps that the decoder leaves out, each drawn to a centre of the class's clean latents.

        x0 ← x0 + min(1, μ (1-ᾱ)/√ᾱ) (m - x0)

    The decoder's own steps are not guided, so its ``start`` says when that stops, and what is stored is one latent a
    row, not the mode beside it.

    Args:
        centres: ``"mixture"`` (heaviest Gaussian first) or ``"k-means"`` (largest cluster first).
        strength: μ.

    Raises:
        InputError: other centres, a negative strength; when called, a decoder that is no diffusion model, or one that
            starts at the beginning.

    *Reference:* Chan-Santiago et al. 2025, "MGD3", arXiv 2505.18963. *Differs from the paper:* DDIM's steps, where the
    authors' default draws noise in each; the pull ends at the mode (see ``DiffusionDecoder.towards``).
    """

    cite: ClassVar[tuple[str, ...]] = ("chansantiago2025mgd3",)
    centres: str = "mixture"
    strength: float = 0.1

    def __post_init__(self) -> None:
        _check(self.centres)
        if self.strength < 0:
            raise InputError(f"strength = {self.strength}: give 0 or more.")

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        return _started(request, "modes", self.centres, "towards", self.strength)


def _check(centres: str) -> None:
    if centres not in CENTRES:
        raise InputError(f"centres = {unknown('kind of centre', centres, CENTRES)}")


@torch.no_grad()
def _started(request: Request, kind: str, centres: str, way: str, *strength: float) -> Latents:
    """Latents of all rows that the decoder makes of their centres, in the way named; keyed by class."""
    decoder: Any = request.decoder
    make: Callable[..., Latents] | None = getattr(decoder, way, None)
    if make is None:
        raise InputError(
            f'init = "{kind}" puts clean latents under noise, which {type(decoder).__name__} knows nothing of: take a '
            'diffusion decoder, or init = "centroids" or "mixture" for the centres themselves.'
        )

    def points_of(store: ClassStore, cls: int) -> Tensor:
        parts = torch.split(store.of_class(cls), images_at_once(request.decoder))
        return torch.cat([decoder.clean(to_float(x).to(request.device)).flatten(1).cpu() for x in parts])

    found: list[Latents] = []
    for cls, points in enumerate(class_centres(request, kind, CENTRES[centres], points_of)):
        if not len(points):
            continue
        clean = points.view(-1, *decoder.latent_shapes["z"]).to(request.device)
        owner, rng = torch.full((len(clean),), cls, device=request.device), stream(request.seed, kind, index=cls)
        try:
            found.append(make(clean, owner, rng, *strength))
        except ValueError as error:  # portable classes cannot know our errors
            raise InputError(f'init = "{kind}": {error}.') from error
    return {name: torch.cat([part[name].cpu() for part in found]) for name in found[0]}
