"""Files and folders that appear whole or not at all, and safetensors files with texts beside their tensors."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentdc.errors import BundleError, InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place, safely on disk, once the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def destination(path: Path | str) -> Path:
    """A path under which a file or folder can be made, with a name of its own: known before the work, not after.

    ``.`` and ``..`` become absolute, since what is kept beside a result is named after it; other paths stay as given.

    Raises:
        InputError: nothing can be made there; the message says why.
    """
    place = Path(path)
    if place.name in ("", ".."):
        place = Path(os.path.abspath(place))
    parent = place.parent
    try:
        place.exists()  # Raises where the name is too long or the way there is closed.
        while not parent.exists():
            parent = parent.parent
        if not place.name or not parent.is_dir():
            reason = f"{parent} is a file" if place.name else "it has no name"
            raise InputError(f"{path}: nothing can be written there, {reason}; choose another place (--out).")
        tempfile.TemporaryFile(dir=parent).close()  # Permissions alone do not tell: /proc grants them and refuses.
    except OSError as error:
        raise InputError(
            f"{path}: nothing can be written there ({error.strerror}); choose another place (--out)."
        ) from error
    return place


def keep_others(old: Path, fresh: Path, own: Collection[str]) -> None:
    """Copy to a new result what somebody put beside the old one, whose own files and folders give way.

    Args:
        old: the folder that is about to be replaced; it need not be there.
        fresh: the folder that takes its place; nothing in it is touched.
        own: what the old result itself consists of, as paths relative to ``old``.
    """

    def gives_way(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(old)
        return {name for name in names if (inside / name).as_posix() in own or (fresh / inside / name).exists()}

    if old.is_dir():
        shutil.copytree(old, fresh, symlinks=True, ignore=gives_way, dirs_exist_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write tensors, and texts as metadata, to one safetensors file; a crash leaves the old file or the new one."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as part:
        save_file(whole, part, metadata=dict(texts))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file.

    Raises:
        BundleError: it cannot be read as one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, texts  # noqa: SIM118 (a handle, not a dict)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a readable safetensors file: {error}") from error


def digest_tensors(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """sha256 over names, types, shapes and bytes, and a text kept beside them; two mappings of equal value agree."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}/{value.dtype}/{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(text.encode())
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
