"""What a start may look at, and how it gets at real images and their latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.decoders.chunks import images_at_once
from latentdc.errors import InputError
from latentdc.networks import Network
from latentdc.portable.distribution import DistributionBank
from latentdc.seeding import stream
from latentdc.types import Batch, Decoder, Formation, Latents

Pick = Callable[[ClassStore, int, int], Tensor]
"""(store, class, number) → store indices of that many real images."""


@dataclass(frozen=True)
class Request:
    """Everything a start may look at."""

    decoder: Decoder
    counts: tuple[int, ...]
    """Rows of each class."""
    seed: int
    store: ClassStore | None = None
    net: Network | None = None
    formation: Formation | None = None
    device: torch.device | str = "cpu"
    """Where decoder and network are."""
    progress: bool = False

    @property
    def images_per_row(self) -> int:
        """Real images that one row starts from: a formation's ``packs``, else all that it makes of a row."""
        return 1 if self.formation is None else int(getattr(self.formation, "packs", self.formation.expands))


@runtime_checkable
class Start(Protocol):
    """A way to begin: latents for every row of a request, class after class.

    One that reads more than the request may have ``identity() -> dict``, what its options are known by in place of
    their values (a file by its contents, wherever it lies), and ``told() -> dict``, what the bundle says of it.
    """

    def __call__(self, request: Request) -> Latents | DistributionBank:
        """Latents ``(s, *shape)`` of all rows asked for, or a distribution that rows are drawn from."""
        ...


def encodes(decoder: Decoder) -> bool:
    """Whether the decoder has an ``encode``, and settings under which it works."""
    return hasattr(decoder, "encode") and bool(getattr(decoder, "invertible", True))


def encoder_of(request: Request, kind: str) -> Callable[[Tensor, Tensor], Latents]:
    """The decoder's ``encode``.

    Raises:
        InputError: it has none, or, when called, settings or weights with which it cannot.
    """
    encode: Callable[[Tensor, Tensor], Latents] | None = getattr(request.decoder, "encode", None)
    if encode is None:
        raise InputError(
            f'init = "{kind}" encodes real images and {type(request.decoder).__name__} has no encoder: use init = '
            '"prior", "inversion" (which needs none), or a decoder that encodes, such as pixels.'
        )

    def checked(x: Tensor, owner: Tensor) -> Latents:
        try:
            return encode(x, owner)
        except ValueError as error:  # portable classes cannot know our errors
            raise InputError(
                f'init = "{kind}" encodes real images: {error}. Use init = "prior" or "inversion".'
            ) from error

    return checked


def store_of(request: Request, kind: str) -> ClassStore:
    """The real images.

    Raises:
        InputError: none were given.
    """
    if request.store is None:
        raise InputError(f'init = "{kind}" needs real images: give the data, or use init = "prior".')
    return request.store


def random_images(kind: str, seed: int) -> Pick:
    """Random real images, keyed by seed and class."""
    return lambda store, cls, num: store.pick(cls, num, stream(seed, f"init-{kind}", index=cls))


def chosen(request: Request, kind: str, pick: Pick) -> Batch:
    """The real images that ``pick`` names, as many in each row as the formation will take out of it, on the device.

    Raises:
        InputError: no data, too few images, or a formation that cannot pack.
    """
    store = store_of(request, kind)
    asked = [(cls, num * request.images_per_row) for cls, num in enumerate(request.counts) if num]
    batch = store.batch(torch.cat([pick(store, cls, num) for cls, num in asked]))
    return _packed(batch, request)


def _packed(batch: Batch, request: Request) -> Batch:
    x, formation = batch.x.to(request.device), request.formation
    if formation is not None:
        pack: Callable[[Tensor], Tensor] | None = getattr(formation, "pack", None)
        if pack is None:
            raise InputError(
                f'{type(formation).__name__} cannot pack images into a row (no "pack"): use init = "prior".'
            )
        x = pack(x)
    step = request.images_per_row
    return batch._replace(x=x, y=batch.y[::step].to(x.device), owner=batch.owner[::step].to(x.device))


@torch.no_grad()
def encoded(request: Request, kind: str, x: Tensor, owner: Tensor) -> Latents:
    """Latents of images ``(n, c, h, w)`` in [0, 1], some at a time, on the CPU.

    Raises:
        InputError: the decoder has no encoder.
    """
    encode = encoder_of(request, kind)
    device, num = request.device, images_at_once(request.decoder)
    pairs = zip(torch.split(x, num), torch.split(owner, num), strict=True)
    parts = [encode(images.to(device), classes.to(device)) for images, classes in pairs]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
