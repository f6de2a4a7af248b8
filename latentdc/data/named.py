"""Data sets known by name: where they are looked for, their classes and their published statistics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from latentdc.data.decode import Raw, Split, resize
from latentdc.data.idx import find_idx, read_split
from latentdc.data.parquet import parquet_files, read_parquet
from latentdc.errors import DataError

ENVIRONMENT = "LATENTDC_DATA"
CACHE = Path("~/.cache/latentdc/data")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
EMBEDDED = Path(__file__).resolve().parent / "fashion-mnist-mini"
_GARMENTS = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_THINGS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"


@dataclass(frozen=True)
class Published:
    """What the literature agrees on for a data set."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]
    fingerprint: str
    """Of the training split; tells whether files are the published ones."""


PUBLISHED = {
    "fashion-mnist-mini": Published(
        tuple(_GARMENTS.split(",")),
        (0.2861,),
        (0.3530,),
        (1, 28, 28),
        "671a2da7841ee55c912f360a9c507aa52c899fcd589413d188bbf32e2430792a",
    ),
    "fashion-mnist": Published(
        tuple(_GARMENTS.split(",")),
        (0.2861,),
        (0.3530,),
        (1, 28, 28),
        "f72c6b6e1c41fc9940a6c9fb0ee108dfd48a4988756193b7fd9545218c288de4",
    ),
    "cifar10": Published(
        tuple(_THINGS.split(",")),
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
        (3, 32, 32),
        "bd8105f22c6ea9ba5ba9fbc17bc0a0209b93f36679e641dd92ae26ce455a619f",
    ),
}


def roots() -> list[Path]:
    """Folders searched for named data sets: those in ``$LATENTDC_DATA`` (``:``-separated), ``./data``, the cache."""
    given = [Path(entry) for entry in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if entry]
    return [root.expanduser() for root in (*given, Path("data"), CACHE)]


def read_named(name: str, *, size: int | None, download: bool) -> Raw:
    """One of ``PUBLISHED``.

    Raises:
        DataError: not found (the message lists where it was looked for), or found and damaged.
    """
    if name == "fashion-mnist-mini":
        return _from_idx(EMBEDDED, name, size)
    places = list(_places(name))
    found = next((place for place in places if _holds(name, place)), None)
    if found is None and download:
        found = _download(name)
    if found is None:
        raise DataError(
            f"{name} was not found in {', '.join(map(str, places))}. Set {ENVIRONMENT} to the folder that has it, "
            "or allow the download with --download."
        )
    if name == "fashion-mnist":
        return _from_idx(found, name, size)
    return _cifar_parquet(found, size) if parquet_files(found) else _cifar_torchvision(found, size)


def _places(name: str) -> Iterator[Path]:
    for root in roots():
        if name == "fashion-mnist":
            yield from (root, root / "FashionMNIST" / "raw", root / "fashion-mnist")
        else:
            yield from (root, root / "cifar10")
    if name == "fashion-mnist":
        yield DEBIAN


def _holds(name: str, place: Path) -> bool:
    if name == "fashion-mnist":
        return find_idx(place, "train-images-idx3-ubyte") is not None
    return (place / "cifar-10-batches-py").is_dir() or bool(parquet_files(place))


def _from_idx(folder: Path, name: str, size: int | None) -> Raw:
    train, test = (read_split(folder, prefix) for prefix in ("train", "t10k"))
    names = PUBLISHED[name].class_names
    return Raw(name, names, Split(resize(train[0], size), train[1]), Split(resize(test[0], size), test[1]))


def _cifar_parquet(folder: Path, size: int | None) -> Raw:
    raw = read_parquet(folder, size)
    if len(raw.class_names) != 10 or raw.train.images.shape[1] != 3:
        raise DataError(
            f"{folder}: not CIFAR-10: {len(raw.class_names)} classes, images {tuple(raw.train.images.shape[1:])}. "
            f"Point {ENVIRONMENT} elsewhere, or give this folder itself as the data set."
        )
    return raw._replace(name="cifar10", class_names=PUBLISHED["cifar10"].class_names)


def _cifar_torchvision(root: Path, size: int | None) -> Raw:
    from torchvision.datasets import CIFAR10

    splits = []
    for train in (True, False):
        try:
            data = CIFAR10(root, train=train, download=False)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            raise DataError(f"{root}: the CIFAR-10 files are incomplete or damaged ({error}).") from error
        labels = torch.tensor(data.targets)
        order = np.argsort(data.targets, kind="stable")
        images = torch.empty((len(order), 3, 32, 32), dtype=torch.uint8)
        for slot, row in enumerate(order):
            images[slot] = torch.from_numpy(data.data[row]).permute(2, 0, 1)
        splits.append(Split(resize(images, size), labels[torch.from_numpy(order)]))
    return Raw("cifar10", PUBLISHED["cifar10"].class_names, splits[0], splits[1])


def _download(name: str) -> Path:
    import torchvision.datasets

    root = roots()[0] if os.environ.get(ENVIRONMENT) else CACHE.expanduser()
    root.mkdir(parents=True, exist_ok=True)
    kind = torchvision.datasets.FashionMNIST if name == "fashion-mnist" else torchvision.datasets.CIFAR10
    try:
        for train in (True, False):
            kind(root, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{name} could not be downloaded to {root} ({error}).") from error
    return root / "FashionMNIST" / "raw" if name == "fashion-mnist" else root
