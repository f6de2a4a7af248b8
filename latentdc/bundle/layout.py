"""The folder's layout: which file is what, which version, and the portable code that travels with the weights."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentdc.decoders import DECODERS, FORMATIONS
from latentdc.decoders.components import read_json
from latentdc.errors import BundleError, InputError
from latentdc.portable.bank import LatentBank
from latentdc.portable.distribution import DistributionBank

FORMAT = "latentdc-bundle"
VERSION = 1
MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
REPORT = "report.json"
INDEX = "model_index.json"
CARD = "README.md"
PICTURE = "grid.png"
"""What a condensation shows of its set."""
COMPONENTS = ("bank", "decoder", "formation")
LOADABLE = (".py", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
"""Suffixes that some loader might pick up: such a file must be listed in the manifest."""

BANKS: tuple[type[Any], ...] = (LatentBank, DistributionBank)
CLASSES: dict[str, type[Any]] = {kind.__name__: kind for kind in (*BANKS, *DECODERS.values(), *FORMATIONS.values())}
"""Component classes that latentdc has installed, by the name a bundle gives them."""

_ALLOWED = {"torch", "diffusers", "numpy", "__future__", *sys.stdlib_module_names}


def looks_like_bundle(folder: str | Path) -> bool:
    """Whether a folder is to be read as a bundle, even if damaged, and not as a pipeline of diffusers.

    Both have an index; a bundle's names a pipeline class in a file of its own, or has a manifest beside it.
    """
    root = Path(folder)
    if not (root / INDEX).is_file():
        return False
    with suppress(BundleError):
        return (root / MANIFEST).is_file() or isinstance(read_json(root / INDEX).get("_class_name"), list)
    return True


def portable_source(kind: type[Any]) -> str:
    """Source of the file that defines a component class, checked to stand alone.

    A class that does more than a bundle needs names the one that ``travels`` in its place, of equal name and weights.

    Raises:
        InputError: the file cannot be found, or it imports something that is absent where only diffusers is installed.
    """
    file = inspect.getsourcefile(getattr(kind, "travels", kind))
    if file is None or not Path(file).is_file():
        raise InputError(
            f"{kind.__name__} has no source file to put into the bundle; define it in a .py file of its own."
        )
    source = Path(file).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] not in _ALLOWED:
                raise InputError(
                    f"{file}, line {node.lineno}: {kind.__name__} travels inside the bundle, so its file may import "
                    f"torch, diffusers, numpy and the standard library only; it imports {name}. Move the class to a "
                    "file of its own."
                )
    return source


def is_library_class(kind: type[Any]) -> bool:
    """Whether diffusers or transformers itself defines the class, so that no code has to travel."""
    return kind.__module__.split(".")[0] in ("diffusers", "transformers")


def write_code(folder: Path, stem: str, kind: type[Any]) -> str:
    """Write the class's file under a name that carries its content's hash; returns the module name."""
    source = portable_source(kind)
    module = f"{stem}_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    return module


def dump(path: Path, value: Any) -> None:
    """Write JSON, indented, with a final newline.

    Raises:
        InputError: the value holds something JSON does not have.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name}: {error}; give strings, finite numbers, lists and dicts only.") from error
    path.write_text(text + "\n", encoding="utf-8")


def listed(folder: Path) -> set[str]:
    """The files that a folder's manifest lists; none where it is damaged."""
    with suppress(BundleError):
        files = read_json(folder / MANIFEST).get("files")
        return set(files) if isinstance(files, dict) else set()
    return set()


def unlisted(folder: Path, known: set[str]) -> list[str]:
    """Files outside the manifest that a loader might read: any in a component's folder, code and weights elsewhere."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        inside = name.split("/")[0] in COMPONENTS
        if path.is_file() and name not in known and (inside or path.suffix in LOADABLE):
            found.append(name)
    return found


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle of any version, intact or not."""
    try:
        return read_json(folder / MANIFEST).get("format") == FORMAT
    except BundleError:
        return False


def aside(folder: Path) -> Path:
    """Where a bundle waits while a new one takes its place."""
    return folder.with_name(f".{folder.name}.replaced")


def recovered(folder: str | Path) -> Path:
    """The folder, after putting a bundle back that a killed process had set aside, if nothing is in its place."""
    folder = Path(folder)
    waiting = aside(folder)
    if not folder.exists() and is_bundle(waiting):
        with suppress(OSError):  # Somebody else was faster, or the place is read-only.
            os.replace(waiting, folder)
    return folder


def check_version(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuse what is no bundle, or a bundle of a version this latentdc does not read.

    Raises:
        BundleError: saying which.
    """
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{folder}: {MANIFEST} says format {manifest.get('format')!r}, not {FORMAT!r}: not a bundle.")
    if manifest.get("version") != VERSION:
        raise BundleError(
            f"{folder}: bundle version {manifest.get('version')!r} is unknown; this latentdc reads version {VERSION}. "
            "Install the latentdc that wrote it, or load it with diffusers and trust_remote_code=True."
        )
