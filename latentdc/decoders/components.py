"""Loads and checks one stored component: a folder with ``config.json`` and safetensors, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from latentdc.errors import BundleError, InputError
from latentdc.portable.module import ModuleDecoder

WEIGHTS = "diffusion_pytorch_model.safetensors"
UNREAD = (".py", ".png")
"""Suffixes of files that loading never reads: a download may leave them out."""
_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_files(folder: Path, wanted: object) -> None:
    """Compare files with their recorded sha256; one that loading never reads (code, pictures) may be absent.

    Args:
        folder: where the files lie.
        wanted: sha256 by path relative to ``folder``, as some JSON has it.

    Raises:
        BundleError: it is no such list, or a file is missing, lies outside the folder, or is not what was written.
    """
    if not isinstance(wanted, Mapping) or not all(isinstance(each, str) for each in wanted.values()):
        raise BundleError(
            f"{folder}: its list of files is damaged or was edited: a sha256 for each file name is needed, it has "
            f"{str(wanted)[:80]}. Copy or download the folder again."
        )
    root = folder.absolute()
    for name, expected in wanted.items():
        path = folder / name
        # By name: a download cache links to files that lie elsewhere, and their content is compared anyway.
        if not root.joinpath(name).is_relative_to(root) or ".." in Path(name).parts:
            raise BundleError(f"{folder}: lists {name}, which lies outside the folder; it was tampered with.")
        if not path.is_file():
            if path.suffix in UNREAD and not path.is_symlink():
                continue
            raise BundleError(f"{folder}: {name} is missing; copy or download the folder again, all files of it.")
        if (found := sha256_of(path)) != expected:
            raise BundleError(
                f"{folder}: {name} is damaged or was edited: its sha256 is {found[:12]}…, not {expected[:12]}… as "
                "recorded when it was written. Copy or download the folder again."
            )


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        BundleError: the file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path.parent}: {path.name} is missing; copy or download the folder again.") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path}: holds a {type(value).__name__}; a JSON object is expected.")
    return value


def class_path(kind: type[Any]) -> str:
    """``"package.module:Class"`` of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def load_component(kind: type[ModelMixin], folder: Path, *, own: Sequence[type[Any]] = ()) -> ModelMixin:
    """A component of a known class, in eval mode, every weight present and none left over.

    Args:
        kind: its class.
        folder: where it lies.
        own: classes that a decoder of kind ``module`` may be made of: a name in a file alone runs nothing.

    Raises:
        InputError: it is made of a class that was not given.
        BundleError: the configuration does not fit the class, or weights are missing, unexpected or of a wrong shape.
    """
    named = str(read_json(folder / "config.json").get("generator")) if kind is ModuleDecoder else ""
    if named and named not in map(class_path, own):
        raise InputError(
            f"{folder}: is made of {named}, whose code would run. Where you trust it, give the class: --own {named} on "
            "the command line, load_decoder(folder, classes=[…]) or load_bundle(folder, classes=[…]) in Python."
        )
    if not (folder / WEIGHTS).is_file() and not (folder / f"{WEIGHTS}.index.json").is_file():  # or in several files
        raise BundleError(f"{folder}: {WEIGHTS} is missing; latentdc reads safetensors only, never pickled weights.")
    try:
        loaded: Any = kind.from_pretrained(
            str(folder), output_loading_info=True, use_safetensors=True, local_files_only=True
        )
        module, info = loaded
    except Exception as error:  # whatever a class raises at sizes it cannot be made in, down to ZeroDivisionError
        raise BundleError(f"{folder}: cannot be loaded as {kind.__name__}: {error or type(error).__name__}") from error
    for what in ("missing", "unexpected", "mismatched"):
        if names := info.get(f"{what}_keys"):
            listed = ", ".join(sorted(map(str, names)))
            raise BundleError(
                f"{folder}: {WEIGHTS} has {what} weights for {kind.__name__}: {listed}. "
                "The file was written by another version or edited; make it again."
            )
    ready: ModelMixin = module.eval()
    return ready
