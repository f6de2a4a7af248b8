"""Finds what latentdc ships: recipes (``pipelines/``) and checkpoints, in a clone or in an installed wheel."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from latentdc.errors import InputError, unknown

_NAMES = {"pipelines": "recipe", "checkpoints": "checkpoint"}
"""What one resource of a kind is called."""


def _roots(package: Path) -> tuple[Path, ...]:
    """Where resources lie: a wheel carries them inside the package; a clone keeps them beside it.

    Only a ``pyproject.toml`` beside the package makes its parent a clone: a wheel's parent is ``site-packages``, where
    a ``checkpoints`` or ``pipelines`` folder is somebody else's.
    """
    inside = package / "_shipped"
    return (inside, package.parent) if (package.parent / "pyproject.toml").is_file() else (inside,)


_ROOTS = _roots(Path(__file__).resolve().parent)
"""Folders that hold resources; a later one hides an earlier one's of the same name."""


def shipped(kind: str) -> dict[str, Path]:
    """All shipped resources of one kind, by name.

    Args:
        kind: ``"pipelines"`` (recipes; name is the TOML's stem) or ``"checkpoints"`` (name is the folder's).
    """
    found: dict[str, Path] = {}
    for root in _ROOTS:
        folder = root / kind
        if kind == "pipelines":
            found |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
        elif folder.is_dir():
            found |= {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    return found


def own_class(path: str) -> type[Any]:
    """A class that somebody brings along, by ``"package.module:Class"``; its module is imported.

    Raises:
        InputError: it cannot be imported, or is no class.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise InputError(f'"{path}": a class of your own is named "package.module:Class".')
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f'"{path}": cannot import {name} from {module}: {error}. Install its package, or put its folder on '
            "PYTHONPATH."
        ) from error
    if not isinstance(found, type):
        raise InputError(f'"{path}": {name} is a {type(found).__name__}; a class is needed here.')
    return found


def find(kind: str, name: str) -> Path:
    """Path of one shipped resource.

    Raises:
        InputError: nothing of that name is shipped; the message lists what is.
    """
    known = shipped(kind)
    if name not in known:
        raise InputError(unknown(_NAMES.get(kind, kind), name, known))
    return known[name]
