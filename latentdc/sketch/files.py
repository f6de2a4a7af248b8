"""The file of a sketch: tensors and one JSON text in a safetensors file, checked by sha256."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from latentdc.atomic import digest_tensors, read_tensors, write_tensors
from latentdc.errors import BundleError, InputError

_KEY = "latentdc-sketch"


def write(path: str | Path, tensors: dict[str, Tensor], text: str) -> None:
    """Write tensors and a text as one safetensors file that appears whole or not at all."""
    write_tensors(Path(path), tensors, {_KEY: text, "sha256": digest_tensors(tensors, text)})


def read(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """What ``write`` wrote.

    Raises:
        InputError: there is no such file.
        BundleError: it is damaged or something else.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such sketch; make one with `latentdc sketch`")
    try:
        tensors, told = read_tensors(Path(path))
    except BundleError as error:
        raise BundleError(f"{error}; make the sketch again with `latentdc sketch`") from error
    if _KEY not in told:
        raise BundleError(f"{path}: a safetensors file, but not a sketch")
    if told.get("sha256") != digest_tensors(tensors, told[_KEY]):
        raise BundleError(f"{path}: its contents do not match their sha256; the file is damaged, make or copy it again")
    return tensors, told[_KEY]
