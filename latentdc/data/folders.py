"""Image folders: one sub-folder per class, optionally under ``train`` and ``test``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from latentdc.data.decode import ImageStack, Raw, Split, open_image
from latentdc.errors import DataError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "validation", "valid")


def read_folder(path: Path, size: int | None) -> Raw:
    """Class folders of ``path``, or of its ``train`` (and ``test`` or ``val``) sub-folders.

    Raises:
        DataError: no class folders, a class without images, a corrupt image, or mixed sizes without ``size``.
    """
    root = next((path / name for name in TRAIN_NAMES if (path / name).is_dir()), path)
    names = class_folders(root)
    if not names:
        raise DataError(
            f"{path}: no class folders. Put the images of each class in its own folder ({path}/cat/1.png, "
            f"{path}/dog/1.png, or under {path}/train and {path}/test), or give a parquet file."
        )
    train = _read_split(root, names, size, None)
    shape = train.images.shape
    held = None if root == path else next((path / name for name in TEST_NAMES if (path / name).is_dir()), None)
    if held is None:
        return Raw(path.name, names, train, None)
    extra = sorted(set(class_folders(held)) - set(names))
    if extra:
        raise DataError(f"{held}: class {extra[0]!r} is not among the training classes ({', '.join(names)}).")
    return Raw(path.name, names, train, _read_split(held, names, size, (shape[1], shape[2], shape[3])))


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the visible sub-folders in order: numbers by value, anything else by spelling."""
    names = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Class names as folder names, distinct also where case does not count: what paths cannot carry becomes ``_``.

    >>> folder_names(["T-shirt/top", "T-shirt:top", "bag", "Bag"])
    ['T-shirt_top', 'T-shirt_top-1', 'bag', 'Bag-3']
    """
    safe = [re.sub(r"[^\w .+-]", "_", name).strip(" .") or str(n) for n, name in enumerate(class_names)]
    owner: dict[str, int] = {}
    for number, name in enumerate(class_names):
        if safe[number] == name:  # A name that can stay as it is belongs to its own class first.
            owner.setdefault(name.casefold(), number)
    for number in range(len(safe)):
        while owner.setdefault(safe[number].casefold(), number) != number:
            safe[number] += f"-{number}"
    return safe


def _read_split(root: Path, names: tuple[str, ...], size: int | None, like: tuple[int, int, int] | None) -> Split:
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        folder = root / name
        images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS) if folder.is_dir() else []
        if not images and like is None:
            raise DataError(
                f"{folder}: no images (looked for {', '.join(sorted(EXTENSIONS))}). Add some, or remove the folder."
            )
        files += [(image, label) for image in images]
    if not files:
        raise DataError(f"{root}: no images in any class folder. Add some, or remove the folder.")
    stack = ImageStack(len(files), size, like)
    for slot, (file, _) in enumerate(files):
        stack.put(slot, open_image(file, str(file)), str(file))
    return Split(stack.images, torch.tensor([label for _, label in files]))
