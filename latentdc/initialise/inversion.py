"""Inversion by optimisation: the latents whose images are nearest to given ones, with an encoder or without."""

# tqdm carries no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from latentdc.errors import InputError
from latentdc.initialise.request import Request, chosen, encoded, encodes, random_images
from latentdc.networks import Network
from latentdc.seeding import stream
from latentdc.types import Batch, Decoder, Latents

_BETAS = (0.9, 0.999)
_EPS = 1e-8


@dataclass(frozen=True)
class Inverted:
    """What inversion found; tensors on the CPU."""

    latents: Latents
    """The best iterate of each row ``(n, *shape)``."""
    errors: Tensor
    """Mean squared pixel error of each row's best iterate ``(n,)``."""
    start_errors: Tensor
    """The same before the first step ``(n,)``."""
    steps: Tensor
    """Steps each row was moved for ``(n,)``, int64; fewer than asked where it stopped early."""


@dataclass(frozen=True)
class Inversion:
    """Latents that decode to given real images, found by gradient descent; one row per image or pack.

        min_z  ‖G(z) − x‖² / chw  +  λ ‖φ(G(z)) − φ(x)‖² / ‖φ(x)‖²

    with φ the embedding of a network. Adam, every row on its own: a row that has not improved on its best by a share of
    ``tolerance`` for ``patience`` steps is not moved any more, and the best iterate of each row is kept. It starts at
    the decoder's ``encode`` where there is one, else at the nearest of
    several prior draws.

    Args:
        steps: at most this many steps.
        lr: Adam's step size.
        feature_weight: λ; 0 needs no network.
        draws: where there is no encoder, prior draws per image, of which the nearest begins.
        patience: steps without improvement before a row stops.
        tolerance: least relative improvement that counts.
        batch_size: rows at a time; memory is bounded by it, the result does not depend on it beyond rounding.

    Raises:
        InputError: a value out of range.

    *Reference:* Zhao and Bilen 2022, "Synthesizing Informative Training Samples with GAN", arXiv 2204.07513, §3.1.
    *Differs from the authors' code:* their training code is not public: step size as their file names
    tell, the rest ours.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2022itgan",)
    steps: int = 300
    lr: float = 0.1
    feature_weight: float = 0.1
    draws: int = 16
    patience: int = 40
    tolerance: float = 1e-3
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name in ("steps", "draws", "patience", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"{name} = {value}: give at least 1.")
        if not self.lr > 0 or self.feature_weight < 0 or not 0 <= self.tolerance < 1:
            raise InputError(
                f"lr = {self.lr}, feature_weight = {self.feature_weight}, tolerance = {self.tolerance}: give lr > 0, "
                "feature_weight ≥ 0 and tolerance in [0, 1)."
            )

    def images(self, request: Request) -> Batch:
        """The random real images that are inverted, packed."""
        return chosen(request, "inversion", random_images("inversion", request.seed))

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        batch = self.images(request)
        if encodes(request.decoder):
            begin = encoded(request, "inversion", batch.x, batch.owner)
        else:
            begin = nearest_draws(request.decoder, batch.x, batch.owner, self.draws, seed=request.seed)
        found = invert(
            request.decoder, batch.x, batch.owner, begin, net=request.net, options=self, progress=request.progress
        )
        return found.latents


@torch.no_grad()
def nearest_draws(decoder: Decoder, x: Tensor, owner: Tensor, num: int, *, seed: int, batch_size: int = 128) -> Latents:
    """For each image the latent, of ``num`` prior draws, whose image is nearest in pixels ``(n, *shape)``.

    A generator's error surface has many valleys: where descent ends is decided by where it begins.

    Args:
        decoder: on the device of ``x``.
        x: images ``(n, c, h, w)`` in [0, 1].
        owner: class of each image ``(n,)``, classes grouped; draws are keyed by seed, class and number.
        num: draws per image.
        seed: of the draws.
        batch_size: images at a time.
    """
    best: Latents = {}
    lowest = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
    classes, counts = owner.unique_consecutive(return_counts=True)
    for draw in range(num):
        parts = [
            decoder.prior(torch.full((count,), cls), stream(seed, "init-inversion-prior", draw, cls))
            for cls, count in zip(classes.tolist(), counts.tolist(), strict=True)
        ]
        z = {name: torch.cat([part[name] for part in parts]).to(x.device) for name in parts[0]}
        for rows in torch.split(torch.arange(len(x), device=x.device), batch_size):
            made = decoder({name: value[rows] for name, value in z.items()}, owner[rows])
            errors = (made - x[rows]).square().flatten(1).mean(1)
            better = rows[errors < lowest[rows]]
            lowest[rows] = torch.minimum(lowest[rows], errors)
            best = best or {name: value.clone() for name, value in z.items()}
            for name, value in z.items():
                best[name][better] = value[better]
    return best


def invert(
    decoder: Decoder,
    x: Tensor,
    owner: Tensor,
    begin: Latents,
    *,
    net: Network | None = None,
    options: Inversion | None = None,
    progress: bool = False,
) -> Inverted:
    """Latents that decode to ``x``; see ``Inversion``.

    Args:
        decoder: on the device of ``x``; its weights are not touched.
        x: images ``(n, c, h, w)`` in [0, 1].
        owner: class of each image ``(n,)``.
        begin: where each row starts ``(n, *shape)``.
        net: whose embedding φ is, in eval mode; may be None if ``feature_weight`` is 0.
        options: steps, step size, weights, patience.
        progress: show a bar on standard error.

    Raises:
        InputError: no network for a feature weight above 0, or not as many latents as images.
    """
    asked = options or Inversion()
    if asked.feature_weight > 0 and net is None:
        raise InputError(
            f"feature_weight = {asked.feature_weight} needs a network whose features are compared: give net, "
            "or feature_weight = 0 for pixels only (in a recipe: init.feature_weight)."
        )
    wrong = {name: len(value) for name, value in begin.items() if len(value) != len(x)}
    if wrong or len(owner) != len(x):
        raise InputError(f"{len(x)} images, {len(owner)} classes and latents {wrong}: give one of each per row.")
    rows = torch.split(torch.arange(len(x), device=x.device), asked.batch_size)
    total = len(rows) * asked.steps
    bar: tqdm = tqdm(total=total, desc="invert", unit="step", file=sys.stderr, disable=not progress)
    found = []
    with bar:
        for number, part in enumerate(rows, start=1):
            distance = _Distance(decoder, x[part], owner[part], net, asked.feature_weight)
            z = {name: value.to(x.device)[part] for name, value in begin.items()}
            found.append(_rows(distance, z, asked, bar))
            bar.update(number * asked.steps - bar.n)  # What early stops saved.
    return Inverted(
        {name: torch.cat([part.latents[name] for part in found]) for name in begin},
        torch.cat([part.errors for part in found]),
        torch.cat([part.start_errors for part in found]),
        torch.cat([part.steps for part in found]),
    )


class _Distance:
    """Pixel error and loss of each row."""

    def __init__(self, decoder: Decoder, x: Tensor, owner: Tensor, net: Network | None, weight: float) -> None:
        self.decoder, self.x, self.owner, self.weight = decoder, x, owner, weight
        self.net = net if weight > 0 else None
        self.target = self.scale = torch.zeros(0)
        if self.net is not None:
            with torch.no_grad():
                self.target = self.net.observe(x).last
            self.scale = self.target.square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)

    def __call__(self, z: Latents, rows: Tensor) -> tuple[Tensor, Tensor]:
        """``(pixel error (m,), loss (m,))`` of latents for the images ``rows``."""
        x = self.decoder(z, self.owner[rows])
        pixels = (x - self.x[rows]).square().flatten(1).mean(1)
        if self.net is None:
            return pixels.detach(), pixels
        gap = (self.net.observe(x).last - self.target[rows]).square().sum(1) / self.scale[rows]
        return pixels.detach(), pixels + self.weight * gap


class _Adam:
    """Adam over some rows at a time: a row left out keeps its place, which a shared optimiser's momentum would not."""

    def __init__(self, z: Latents, lr: float) -> None:
        self.lr = lr
        self.first, self.second = ({name: torch.zeros_like(value) for name, value in z.items()} for _ in range(2))

    def step(self, z: Latents, rows: Tensor, gradients: Sequence[Tensor], number: int) -> None:
        """Move ``rows`` of ``z`` in place; ``number`` counts from 1."""
        for (name, value), gradient in zip(z.items(), gradients, strict=True):
            first = self.first[name][rows].lerp(gradient, 1 - _BETAS[0])
            second = self.second[name][rows].lerp(gradient.square(), 1 - _BETAS[1])
            self.first[name][rows], self.second[name][rows] = first, second
            spread = (second / (1 - _BETAS[1] ** number)).sqrt() + _EPS
            value[rows] = value[rows] - self.lr * first / (1 - _BETAS[0] ** number) / spread


def _rows(distance: _Distance, begin: Latents, options: Inversion, bar: tqdm) -> Inverted:
    """Invert the rows of one batch; only rows still moving are computed."""
    now = {name: value.detach().clone() for name, value in begin.items()}
    best = {name: value.clone() for name, value in now.items()}
    adam = _Adam(now, options.lr)
    num, device, dtype = len(distance.owner), distance.x.device, next(iter(now.values())).dtype
    errors, lowest, counted = (torch.full((num,), torch.inf, device=device, dtype=dtype) for _ in range(3))
    waited, moved = (torch.zeros(num, dtype=torch.int64, device=device) for _ in range(2))
    moving, start_errors = torch.arange(num, device=device), errors
    for step in range(options.steps + 1):  # The last look only judges.
        z = {name: value[moving].requires_grad_() for name, value in now.items()}
        with torch.enable_grad():
            pixels, losses = distance(z, moving)
            gradients = torch.autograd.grad(losses.sum(), list(z.values()))
        losses = losses.detach()
        better = losses < lowest[moving]
        rows = moving[better]
        errors[rows], lowest[rows] = pixels[better], losses[better]
        for name, value in now.items():
            best[name][rows] = value[rows]
        start_errors = errors.clone() if step == 0 else start_errors
        gained = losses < counted[moving] * (1 - options.tolerance)
        counted[moving] = torch.where(gained, losses, counted[moving])
        waited[moving] = torch.where(gained, 0, waited[moving] + 1)
        going = waited[moving] < options.patience
        moving = moving[going]
        if step == options.steps or not len(moving):
            break
        adam.step(now, moving, [gradient[going] for gradient in gradients], step + 1)
        moved[moving] += 1
        bar.update()
    return Inverted({name: value.cpu() for name, value in best.items()}, errors.cpu(), start_errors.cpu(), moved.cpu())
