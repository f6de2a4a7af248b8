"""Starts: the latents a run begins with, keyed by class: they depend on no other class and on no process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentdc.clusters import medoids
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, unknown
from latentdc.initialise.bundled import Bundled
from latentdc.initialise.distribution import KIND, Statistics
from latentdc.initialise.inversion import Inversion
from latentdc.initialise.latent_space import Centroids, LatentMedoids, Mixture
from latentdc.initialise.prototypes import Modes, Prototypes
from latentdc.initialise.request import Request, Start, chosen, encoded, encoder_of, random_images
from latentdc.latents import AnyBank
from latentdc.networks import Network
from latentdc.networks.infer import embed
from latentdc.portable.bank import LatentBank
from latentdc.portable.distribution import DistributionBank
from latentdc.seeding import stream
from latentdc.types import Batch, Decoder, Formation, Latents


def initialise(
    kind: str | Start,
    decoder: Decoder,
    counts: Sequence[int],
    *,
    seed: int,
    store: ClassStore | None = None,
    net: Network | None = None,
    formation: Formation | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> AnyBank:
    """A learnable bank with ``counts[c]`` rows of each class c, on the CPU; of ``statistics``, a distribution of rows.

    Args:
        kind: a name of ``STARTS`` (with its default options), or a start such as ``Inversion(steps=500)``.
        decoder: whose latents; most starts that look at real images need its ``encode``.
        counts: rows of each class.
        seed: of the draws.
        store: the real images, for all starts but ``prior`` and ``class-mean``.
        net: the feature space of ``medoids`` and ``inversion``.
        formation: if it packs several images into one row, a row starts from that many real images.
        device: where to encode and invert.
        progress: show a bar on standard error where it takes long.

    Raises:
        InputError: an unknown kind, something the kind needs is missing, or a class has too few images.
    """
    start, request = _asked(kind, decoder, counts, seed, store, net, formation, device, progress)
    begun = start(request)
    bank: AnyBank
    if isinstance(begun, DistributionBank):
        bank = begun
    else:
        bank = LatentBank.of({name: value.cpu() for name, value in begun.items()}, request.counts)
    return bank


def start_images(
    kind: str | Start,
    decoder: Decoder,
    counts: Sequence[int],
    *,
    seed: int,
    store: ClassStore | None = None,
    net: Network | None = None,
    formation: Formation | None = None,
    device: torch.device | str = "cpu",
) -> Batch | None:
    """The real images that ``initialise`` with the same arguments starts each row from, or None where there are none.

    They are on the device, where decoder and network are moved, as ``initialise`` does.

    Raises:
        InputError: as ``initialise``.
    """
    start, request = _asked(kind, decoder, counts, seed, store, net, formation, device, False)
    images: Callable[[Request], Batch] | None = getattr(start, "images", None)
    return None if images is None else images(request)


def _asked(kind: str | Start, decoder: Decoder, counts: Sequence[int], *rest: Any) -> tuple[Start, Request]:
    """The start and its request, decoder and network on the device."""
    if isinstance(kind, str) and kind not in STARTS:
        raise InputError(f"init = {unknown('start', kind, STARTS)}")
    if len(counts) < 1 or min(counts) < 0 or sum(counts) < 1:
        raise InputError(f"counts = {list(counts)}: give the number of rows of each class, at least one in all.")
    start: Start = STARTS[kind]() if isinstance(kind, str) else kind
    seed, store, net, formation, device, progress = rest
    for module in (decoder, net, formation):
        if isinstance(module, nn.Module):
            module.to(device)
    if net is not None:
        net.eval()
    sizes = tuple(int(c) for c in counts)
    return start, Request(decoder, sizes, seed, store, net, formation, device, progress)


@dataclass(frozen=True)
class Prior:
    """Draws from the decoder's prior."""

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        parts = [
            request.decoder.prior(torch.full((num,), cls), stream(request.seed, "init-prior", index=cls))
            for cls, num in enumerate(request.counts)
            if num
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Real:
    """Random real images, encoded."""

    def images(self, request: Request) -> Batch:
        """The real images, packed."""
        return chosen(request, "real", random_images("real", request.seed))

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        encoder_of(request, "real")
        batch = self.images(request)
        return encoded(request, "real", batch.x, batch.owner)


@dataclass(frozen=True)
class Medoids:
    """Real images nearest the centres of k-means in the features of a network, encoded."""

    def images(self, request: Request) -> Batch:
        """The real images, packed."""
        net = request.net
        if net is None:
            raise InputError('init = "medoids" needs a network whose features it clusters: give net.')

        def pick(store: ClassStore, cls: int, num: int) -> Tensor:
            points = embed(net, store.of_class(cls))
            if num > len(points):
                raise InputError(f"{num} medoids of a class with {len(points)} images: ask for at most {len(points)}.")
            return store.offsets[cls] + medoids(points, num, stream(request.seed, "init-medoids", index=cls))

        return chosen(request, "medoids", pick)

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        encoder_of(request, "medoids")
        batch = self.images(request)
        return encoded(request, "medoids", batch.x, batch.owner)


@dataclass(frozen=True)
class ClassMean:
    """The mean latent of each class, for decoders with a mapped latent space such as a GAN's w.

    Row 0 of a class is the mean w̄_c; row j is w̄_c + ψ (w_j − w̄_c) with w_j from the prior, since equal rows would get
    equal gradients and stay equal.

    Args:
        num: prior draws that the decoder averages.
        truncation: ψ in (0, 1].

    Raises:
        InputError: a value out of range; when called, a decoder without ``class_mean(owner, rng, num)``.

    *Reference:* Cazenavette et al. 2023, arXiv 2305.01649, §3.3; Karras et al. 2019, arXiv 1812.04948, §B (truncation).
    """

    cite: ClassVar[tuple[str, ...]] = ("cazenavette2023glad",)
    num: int = 1000
    truncation: float = 0.7

    def __post_init__(self) -> None:
        if self.num < 1 or not 0 < self.truncation <= 1:
            raise InputError(f"num = {self.num}, truncation = {self.truncation}: give num ≥ 1, 0 < truncation ≤ 1.")

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        mean_of: Callable[..., Latents] | None = getattr(request.decoder, "class_mean", None)
        if mean_of is None:
            raise InputError(
                f'init = "class-mean" asks the decoder for the mean latent of a class, and '
                f'{type(request.decoder).__name__} has no "class_mean": use init = "prior", or the w space of a '
                "generator with a mapping network."
            )
        drawn = Prior()(request)
        found: dict[str, list[Tensor]] = {name: [] for name in drawn}
        row = 0
        for cls, num in enumerate(request.counts):
            if not num:
                continue
            rng = stream(request.seed, "init-class-mean", index=cls)
            try:
                with torch.no_grad():
                    means = mean_of(torch.tensor([cls]), rng, self.num)
            except ValueError as error:  # Of a portable class, which cannot know our errors.
                raise InputError(f'init = "class-mean": {error}') from error
            for name, values in drawn.items():
                mean = means[name].to(values.device)
                rows = mean + self.truncation * (values[row : row + num] - mean)
                rows[0] = mean[0]
                found[name].append(rows)
            row += num
        return {name: torch.cat(parts) for name, parts in found.items()}


STARTS: dict[str, type[Any]] = {
    "prior": Prior,
    "real": Real,
    "medoids": Medoids,
    "centroids": Centroids,
    "latent-medoids": LatentMedoids,
    "mixture": Mixture,
    "class-mean": ClassMean,
    "inversion": Inversion,
    "prototypes": Prototypes,
    "modes": Modes,
    "bundle": Bundled,
    KIND: Statistics,
}
