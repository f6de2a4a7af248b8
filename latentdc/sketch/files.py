"""The file of a sketch: tensors and one JSON text in a safetensors file, checked by sha256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentdc.errors import BundleError, InputError

_KEY = "latentdc-sketch"


def write(path: str | Path, tensors: dict[str, Tensor], text: str) -> None:
    """Write tensors and a text as one safetensors file that appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, beside, {_KEY: text, "sha256": _digest(tensors)})
    os.replace(beside, path)


def read(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """What ``write`` wrote.

    Raises:
        InputError: there is no such file.
        BundleError: it is damaged or something else.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such sketch; make one with `latentdc sketch`")
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a readable sketch: {error}") from error
    if _KEY not in told:
        raise BundleError(f"{path}: a safetensors file, but not a sketch")
    if told.get("sha256") != _digest(tensors):
        raise BundleError(f"{path}: the numbers do not match their sha256; the file is damaged, make or copy it again")
    return tensors, told[_KEY]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}/{tensors[name].dtype}/{tuple(tensors[name].shape)};".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
