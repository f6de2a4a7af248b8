"""Finds what latentdc ships: recipes (``pipelines/``) and checkpoints, in a clone or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from latentdc.errors import InputError, unknown

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE.parent, _PACKAGE / "_shipped")
"""A clone keeps ``pipelines/`` and ``checkpoints/`` beside the package; a wheel carries them inside it."""


def shipped(kind: str) -> dict[str, Path]:
    """All shipped resources of one kind, by name.

    Args:
        kind: ``"pipelines"`` (recipes; name is the TOML's stem) or ``"checkpoints"`` (name is the folder's).
    """
    found: dict[str, Path] = {}
    for root in reversed(_ROOTS):
        folder = root / kind
        if kind == "pipelines":
            found |= {path.stem: path for path in sorted(folder.glob("*.toml"))}
        elif folder.is_dir():
            found |= {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    return found


def find(kind: str, name: str) -> Path:
    """Path of one shipped resource.

    Raises:
        InputError: nothing of that name is shipped; the message lists what is.
    """
    known = shipped(kind)
    if name not in known:
        raise InputError(unknown(kind.rstrip("s"), name, known))
    return known[name]
