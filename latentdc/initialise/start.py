"""Starts: the latents a run begins with, keyed by class: they depend on no other class and on no process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.errors import InputError, unknown
from latentdc.initialise.medoids import medoids
from latentdc.networks import Network
from latentdc.networks.infer import embed
from latentdc.portable.bank import LatentBank
from latentdc.seeding import stream
from latentdc.types import Batch, Decoder, Formation, Latents


@dataclass(frozen=True)
class _Request:
    """Everything a start may look at."""

    decoder: Decoder
    counts: tuple[int, ...]
    seed: int
    store: ClassStore | None
    net: Network | None
    formation: Formation | None

    @property
    def images_per_row(self) -> int:
        return 1 if self.formation is None else self.formation.expands


def initialise(
    kind: str,
    decoder: Decoder,
    counts: Sequence[int],
    *,
    seed: int,
    store: ClassStore | None = None,
    net: Network | None = None,
    formation: Formation | None = None,
) -> LatentBank:
    """A learnable bank with ``counts[c]`` rows of each class c.

    Args:
        kind: ``prior`` (draws from the decoder's prior), ``class-mean`` (the mean w of each class, pushed into the
            decoder's space, the same for all rows of the class: meant for one row each), ``real`` (random real images,
            encoded), or ``medoids`` (real images nearest the centres of k-means in the features of ``net``, encoded).
        decoder: whose latents; ``real`` and ``medoids`` need its ``encode``.
        counts: rows of each class.
        seed: of the draws.
        store: the real images, for ``real`` and ``medoids``.
        net: the feature space of ``medoids``.
        formation: if it packs several images into one row, a row starts from that many real images.

    Raises:
        InputError: an unknown kind, something the kind needs is missing, or a class has too few images.
    """
    if kind not in STARTS:
        raise InputError(f"init = {unknown('start', kind, STARTS)}")
    if len(counts) < 1 or min(counts) < 0 or sum(counts) < 1:
        raise InputError(f"counts = {list(counts)}: give the number of rows of each class, at least one in all.")
    request = _Request(decoder, tuple(int(c) for c in counts), seed, store, net, formation)
    bank: LatentBank = LatentBank.of(STARTS[kind](request), request.counts)
    return bank


def _prior(request: _Request) -> Latents:
    parts = [
        request.decoder.prior(torch.full((num,), cls), stream(request.seed, "init-prior", index=cls))
        for cls, num in enumerate(request.counts)
        if num
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _class_mean(request: _Request) -> Latents:
    mean: Callable[..., Latents] | None = getattr(request.decoder, "class_mean", None)
    if mean is None:
        raise InputError(
            f'init = "class-mean" and {type(request.decoder).__name__} has no mean w: use init = "prior", or a decoder '
            "with a mapping network in the space w, w+ or f<n>."
        )
    try:
        parts = [
            mean(torch.full((num,), cls), stream(request.seed, "init-class-mean", index=cls))
            for cls, num in enumerate(request.counts)
            if num
        ]
    except ValueError as error:  # portable classes cannot know our errors
        raise InputError(f'init = "class-mean": {error}') from error
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _real(request: _Request) -> Latents:
    def pick(store: ClassStore, cls: int, num: int) -> Tensor:
        return store.pick(cls, num, stream(request.seed, "init-real", index=cls))

    return _encoded(request, "real", pick)


def _medoids(request: _Request) -> Latents:
    net = request.net
    if net is None:
        raise InputError('init = "medoids" needs a network whose features it clusters: give net.')

    def pick(store: ClassStore, cls: int, num: int) -> Tensor:
        points = embed(net, store.of_class(cls))
        if num > len(points):
            raise InputError(f"{num} medoids of a class with {len(points)} images: ask for at most {len(points)}.")
        return store.offsets[cls] + medoids(points, num, stream(request.seed, "init-medoids", index=cls))

    return _encoded(request, "medoids", pick)


def _encoded(request: _Request, kind: str, pick: Callable[[ClassStore, int, int], Tensor]) -> Latents:
    """Latents of the real images that ``pick(store, class, number)`` chooses."""
    encode: Callable[..., Latents] | None = getattr(request.decoder, "encode", None)
    if encode is None:
        raise InputError(
            f'init = "{kind}" encodes real images and {type(request.decoder).__name__} has no encoder: use init = '
            '"prior", or a decoder that encodes, such as pixels.'
        )
    if request.store is None:
        raise InputError(f'init = "{kind}" needs real images: give the data, or use init = "prior".')
    asked = [(cls, num * request.images_per_row) for cls, num in enumerate(request.counts) if num]
    chosen = request.store.batch(torch.cat([pick(request.store, cls, num) for cls, num in asked]))
    packed = _packed(chosen, request.formation)
    with torch.no_grad():
        return encode(packed.x, packed.owner)


def _packed(batch: Batch, formation: Formation | None) -> Batch:
    """As many real images in each row as the formation will take out of it."""
    if formation is None:
        return batch
    pack: Callable[[Tensor], Tensor] | None = getattr(formation, "pack", None)
    if pack is None:
        raise InputError(f'{type(formation).__name__} cannot pack images into a row (no "pack"): use init = "prior".')
    return batch._replace(x=pack(batch.x), y=batch.y[:: formation.expands], owner=batch.owner[:: formation.expands])


STARTS: dict[str, Callable[[Any], Latents]] = {
    "prior": _prior,
    "class-mean": _class_mean,
    "real": _real,
    "medoids": _medoids,
}
