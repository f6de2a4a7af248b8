"""The idx format of the MNIST family: a big-endian header, then bytes; plain or gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from latentdc.errors import DataError

_UINT8 = 8


def find_idx(folder: Path, name: str) -> Path | None:
    """``name`` or ``name.gz`` in a folder, whichever exists."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor of an idx file.

    Raises:
        DataError: the file is missing, truncated, not gzip although named so, or not idx of bytes.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            data = bytearray(file.read())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch the file again.") from error
    rank = data[3] if len(data) >= 4 else 0
    if len(data) < 4 + 4 * rank or data[:2] != b"\0\0" or data[2] != _UINT8 or rank == 0:
        raise DataError(f"{path}: not an idx file of bytes (it starts with {bytes(data[:4]).hex()}).")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    have, need = len(data) - 4 - 4 * rank, math.prod(shape)
    if have != need:
        raise DataError(
            f"{path}: truncated or damaged: {have} bytes of data, its header promises {need}. Fetch it again."
        )
    return torch.frombuffer(data, dtype=torch.uint8, offset=4 + 4 * rank, count=need).view(shape)


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 tensor as idx; gzip without a time stamp (equal data, equal file) when the name ends in ``.gz``."""
    header = struct.pack(f">HBB{values.ndim}I", 0, _UINT8, values.ndim, *values.shape)
    data = header + values.contiguous().numpy().tobytes()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def read_split(folder: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Images ``(n, 1, h, w)`` uint8 and labels ``(n,)`` int64 of one split (``prefix`` is ``train`` or ``t10k``).

    Raises:
        DataError: a file is missing or damaged, or images and labels differ in number.
    """
    parts = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        path = find_idx(folder, name)
        if path is None:
            raise DataError(f"{folder}: {name}[.gz] is missing; a split needs its images and its labels.")
        parts.append(read_idx(path))
    images, labels = parts
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{folder}: {prefix} images are {tuple(images.shape)} and labels {tuple(labels.shape)}; "
            "they must be (n, h, w) and (n,)."
        )
    return images.unsqueeze(1), labels.to(torch.int64)
