"""How many rows a heavy decoder can decode at a time: measured on one row, divided into what memory is free."""

# The dispatch mode of torch carries no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentdc.devices import free_bytes
from latentdc.types import Decoder

_log = logging.getLogger(__name__)
_SHARE = 0.5
"""Part of the free memory that decoding may take: networks, real images and the allocator's gaps need the rest."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made inside the block that are alive at a time.

    What autograd saves is among them, and so is what a checkpoint computes again in the backward pass, which hooks on
    saved tensors do not see: checkpoints install hooks of their own inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now: int = 0
        self.peak: int = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and watch what it returns."""
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._watch(value.untyped_storage())
        return out

    def _watch(self, storage: Any) -> None:
        if storage in self._seen:  # a view, or changed in place
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size


def images_at_once(decoder: Any) -> int:
    """Images to encode or decode at a time without gradient: of a heavy decoder fewer, the larger they are."""
    if not getattr(decoder, "heavy", False):
        return 256
    height, width = (int(side) for side in decoder.image_shape[1:])
    return max(1, min(64, 64**3 // (height * width)))  # 64 of 64 x 64 pixels, 4 of 256 x 256


def bytes_per_row(decoder: Decoder, device: torch.device) -> int:
    """Most bytes of tensors alive while one row is decoded and its gradient taken, weights not counted.

    Args:
        decoder: on ``device`` already.
        device: where it will decode.
    """
    weights = decoder.parameters() if isinstance(decoder, nn.Module) else iter(())
    dtype = next((value.dtype for value in weights), torch.float32)
    owner = torch.zeros(1, dtype=torch.int64, device=device)
    prior = decoder.prior(owner, torch.Generator().manual_seed(0))
    z = {name: value.to(device, dtype).requires_grad_() for name, value in prior.items()}
    with torch.enable_grad(), LiveBytes() as live:
        x = decoder(z, owner)
        torch.autograd.grad(x, list(z.values()), torch.ones_like(x), allow_unused=True)
    return max(int(live.peak), 1)


def fitting_chunk(decoder: Decoder, num_rows: int, device: torch.device) -> int | None:
    """Rows to decode at a time, from the memory that is free now; None for all at once.

    Only decoders that say they are ``heavy`` are measured; of others all rows are decoded together. The number is a
    power of two, so that a little more or less free memory gives the same number and so the same rounding.

    Args:
        decoder: on ``device`` already.
        num_rows: how many rows there are.
        device: where it will decode.
    """
    if not getattr(decoder, "heavy", False) or num_rows < 1:
        return None
    per_row, free = bytes_per_row(decoder, device), free_bytes(device)
    rows = int(free * _SHARE) // per_row
    if rows >= num_rows:
        return None
    if rows < 1:
        _log.warning(
            "one row of the decoder takes %.1f GB with its gradient, and %.1f GB are free: decoding one at a time",
            per_row / 1e9,
            free / 1e9,
        )
    chunk = 1 << max(rows.bit_length() - 1, 0)
    _log.info("decoding %d of %d rows at a time: %.0f MB each with gradient", chunk, num_rows, per_row / 1e6)
    return chunk
