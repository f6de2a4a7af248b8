"""From latents to images and back: decoding whose gradient memory does not grow with the set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from latentdc.decoders.chunks import images_at_once
from latentdc.errors import InputError
from latentdc.portable.bank import LatentBank
from latentdc.portable.distribution import DistributionBank
from latentdc.types import Batch, Decoder, Formation

AnyBank = LatentBank | DistributionBank
"""What can be decoded: stored rows, or a distribution that rows are drawn from."""

Decoding = Callable[[Decoder, dict[str, Tensor], Tensor], Tensor]
"""How a decoder is run on latents and owners: as it is, or compiled."""


def as_it_is(decoder: Decoder, z: dict[str, Tensor], owner: Tensor) -> Tensor:
    """``decoder(z, owner)``."""
    return decoder(z, owner)


def _images(
    decoder: Decoder, bank: AnyBank, rows: Tensor, formation: Formation | None, decoding: Decoding = as_it_is
) -> Tensor:
    x = decoding(decoder, bank.latents(rows), bank.owner[rows])
    if formation is None:
        return x
    try:
        return formation(x)
    except ValueError as error:  # portable classes cannot know our errors
        raise InputError(str(error)) from error


def _chunks(rows: Tensor, chunk: int | None) -> tuple[Tensor, ...]:
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk = {chunk}: give the number of rows to decode at a time, at least 1, or None for all")
    return torch.split(rows, chunk or max(len(rows), 1))


def _batch(x: Tensor, bank: AnyBank, rows: Tensor, formation: Formation | None) -> Batch:
    """Images with the targets, owners, weights and rows of the latents they came from."""
    source = rows if formation is None else rows.repeat_interleave(formation.expands)
    w = bank.w
    return Batch(x, bank.y[source], bank.owner[source], None if w is None else w[source], source)


def learns(decoder: Decoder) -> bool:
    """Whether a decoder is part of the set and trained with it (its class says ``learned``), rather than pretrained."""
    return bool(getattr(decoder, "learned", False))


def _learnables(bank: LatentBank, *parts: object) -> list[nn.Parameter]:
    modules = [part for part in (bank, *parts) if isinstance(part, nn.Module)]
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


@contextmanager
def decoded(
    decoder: Decoder,
    bank: LatentBank,
    rows: Tensor,
    chunk: int | None = None,
    *,
    formation: Formation | None = None,
    decoding: Decoding = as_it_is,
) -> Iterator[Batch]:
    """Images of some rows as a leaf; on leaving the block dL/dx is pulled back to every learnable.

    With x = F(G(z)) and any loss L(x), dL/dz = J(z)ᵀ dL/dx. Rows are decoded ``chunk`` at a time without a graph, and
    decoded once more on exit, one chunk's graph alive at a time: the decoder's activation memory is bounded by the
    chunk whatever the number of rows, at the price of one more decoder forward. Where all rows fit one chunk the graph
    of the only forward is kept and no second forward happens. Either way ``x`` is a leaf, ``backward`` may be called on
    it any number of times inside the block, and the gradient is the same.

    The gradient reaches the bank, the formation, and the decoder, as far as their parameters require one. Soft labels
    and weights are part of the ordinary graph. If the block raises, nothing is pulled back.

    Args:
        decoder: deterministic in z, rows independent of each other, norms in eval mode.
        bank: stored in fp32.
        rows: row ids ``(m,)``, int64.
        chunk: rows decoded at a time; None for all at once.
        formation: turns each image into ``expands`` images.
        decoding: how the decoder is run: as it is, or compiled.

    Raises:
        InputError: no rows, a chunk below one, or nothing that requires a gradient.

    *Reference*: Cazenavette et al. 2023, "Generalizing Dataset Distillation via Deep Generative Prior",
    arXiv 2305.01649, §3.3.
    """
    if not len(rows):
        raise InputError("rows is empty: give the ids of at least one stored row, for instance bank.rows([0])")
    if not _learnables(bank, decoder, formation):
        raise InputError(
            f'nothing here can learn: the bank is stored as "{bank.storage}" and decoder and formation are frozen; '
            "condense in fp32 and change the storage afterwards (bundle.requantise), or use decode() for images only"
        )
    parts = _chunks(rows, chunk)
    whole = len(parts) == 1
    with torch.set_grad_enabled(whole):
        images = [_images(decoder, bank, part, formation, decoding) for part in parts]
    x = images[0] if whole else torch.cat(images)
    del images
    leaf = x.detach().requires_grad_()
    yield _batch(leaf, bank, rows, formation)
    if leaf.grad is None:
        return
    if whole:
        torch.autograd.backward(x, leaf.grad)
        return
    per_chunk = torch.split(leaf.grad, [len(leaf) // len(rows) * len(part) for part in parts])
    for part, gradient in zip(parts, per_chunk, strict=True):
        with torch.enable_grad():
            torch.autograd.backward(_images(decoder, bank, part, formation, decoding), gradient)


@torch.no_grad()
def decode(
    decoder: Decoder,
    bank: AnyBank,
    rows: Tensor | None = None,
    chunk: int | None = None,
    *,
    formation: Formation | None = None,
) -> Batch:
    """Images of some rows (all if None) without a graph, not clamped; ``chunk`` rows at a time (None: by the decoder).

    Raises:
        InputError: no rows, or a chunk below one.
    """
    ids = bank.rows() if rows is None else rows
    if not len(ids):
        raise InputError("rows is empty: give the ids of at least one stored row, for instance bank.rows([0])")
    parts = _chunks(ids, images_at_once(decoder) if chunk is None else chunk)
    x = torch.cat([_images(decoder, bank, part, formation) for part in parts])
    return _batch(x, bank, ids, formation)
