"""A set as a distribution: mean and deviation of each class's latents, from encoded real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.initialise.latent_space import class_latents, one_image_per_row, unflat
from latentdc.initialise.request import Request, encoder_of, store_of
from latentdc.portable.distribution import DTYPES, DistributionBank, noise_of
from latentdc.seeding import key
from latentdc.types import Decoder

KIND = "statistics"
"""The start's name in recipes."""
_SEEDS = 2**31
"""A seed is stored in four bytes."""
_SKEW = 0.5


@dataclass(frozen=True)
class Statistics:
    """Per class the mean and deviation (divisor n) of the latents of all real images, and a seed whose draws fit them.

    Of ``tries`` seeds the one is kept whose first rows, as many as are asked for, are nearest to the distribution they
    come from: the sum of |mean|, |deviation − 1| and half |skewness| of the standard normal numbers, averaged over
    dimensions (of a single row only its mean counts). The start is the whole set: nothing is left to optimise.

    Args:
        tries: candidate seeds per class; 1 takes the first.

    Raises:
        InputError: fewer than one try; when called, no encoder, or a class of fewer than two images.

    *Reference:* Zhao et al. 2025, "Taming Diffusion for Dataset Distillation with High Representativeness",
    arXiv 2505.18399, §4.
    *Differs from the authors' code:* latents are those of ``encode``, inverted by it where the decoder is a diffusion
    model; candidates are compared in standard normal space, and a seed is stored in place of the group.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2025d3hr",)
    tries: int = 100

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise InputError(f"tries = {self.tries}: give at least 1.")

    def __call__(self, request: Request) -> DistributionBank:
        """The distribution in fp32, on the CPU; rows of the counts asked for are drawn where no number is."""
        encoder_of(request, KIND)
        one_image_per_row(request, KIND)
        store, counts = store_of(request, KIND), request.counts
        if min(counts) < 1:
            raise InputError(f"counts = {list(counts)}: a distribution needs at least 1 row of each class.")
        means, stds = [], []
        for cls, name in enumerate(store.spec.class_names):
            if store.count(cls) < 2:
                raise InputError(f'class "{name}" has {store.count(cls)} images: a deviation needs at least 2.')
            points = class_latents(request, KIND, store, cls).double()
            means.append(points.mean(0))
            stds.append(points.std(0, unbiased=False))
        mean, std = (unflat(torch.stack(rows), request.decoder.latent_shapes) for rows in (means, stds))
        size = len(means[0])
        seeds = [_seed(request.seed, cls, num, self.tries, size) for cls, num in enumerate(counts)]
        bank: DistributionBank = DistributionBank.of(mean, std, counts, seeds=seeds, storage="fp32")
        return bank


def fit_distribution(
    decoder: Decoder,
    store: ClassStore,
    images_per_class: int,
    *,
    seed: int = 0,
    tries: int = 100,
    storage: str = "fp16",
    device: torch.device | str = "cpu",
) -> DistributionBank:
    """A set as a distribution; see ``Statistics``.

    Args:
        decoder: whose latents; it needs ``encode``.
        store: the real images.
        images_per_class: rows that are decoded where no number is asked for; any number can be.
        seed: of the candidate seeds.
        tries: candidates per class; 1 takes the first.
        storage: ``"fp16"`` or ``"fp32"``.
        device: where to encode.

    Raises:
        InputError: as ``Statistics``, a statistic the storage cannot hold, or a count below 1.
    """
    if images_per_class < 1 or tries < 1:
        raise InputError(f"images_per_class = {images_per_class}, tries = {tries}: give at least 1 of each.")
    if storage not in DTYPES:
        raise InputError(f'storage = "{storage}": a distribution is stored as {" or ".join(DTYPES)}.')
    if isinstance(decoder, nn.Module):
        decoder.to(device)
    counts = (images_per_class,) * store.spec.num_classes
    return stored(Statistics(tries)(Request(decoder, counts, seed, store, device=device)), storage)


def stored(bank: DistributionBank, storage: str) -> DistributionBank:
    """The same distribution in another storage.

    Raises:
        InputError: a statistic the storage cannot hold.
    """
    try:
        return bank.quantise(storage)
    except ValueError as error:  # portable classes cannot know our errors
        raise InputError(str(error)) from error


def _seed(seed: int, cls: int, num: int, tries: int, size: int) -> int:
    """The best of a class's candidate seeds; the first of equals."""
    candidates = [key(seed, "distribution", attempt, cls) % _SEEDS for attempt in range(tries)]
    if tries == 1:
        return candidates[0]
    scores = [_misfit(torch.stack([noise_of(s, cls, j, size) for j in range(num)])) for s in candidates]
    return candidates[scores.index(min(scores))]


def _misfit(noise: Tensor) -> float:
    """How far draws ``(n, d)`` are from standard normal in their first three moments, per dimension."""
    mean = noise.mean(0)
    if len(noise) == 1:
        return float(mean.abs().mean())
    std = noise.std(0, unbiased=False)
    skew = ((noise - mean) / std.clamp(min=torch.finfo(noise.dtype).eps)).pow(3).mean(0)
    return float((mean.abs() + (std - 1).abs() + _SKEW * skew.abs()).mean())
