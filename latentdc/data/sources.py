"""``open_data``: a data set by name, image folder, parquet or idx, as a training and a test ``ClassStore``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from latentdc.data.decode import Raw, Split, resize
from latentdc.data.folders import read_folder
from latentdc.data.idx import find_idx, read_split
from latentdc.data.named import PUBLISHED, read_named
from latentdc.data.parquet import parquet_files, read_parquet
from latentdc.data.store import ClassStore, channel_statistics
from latentdc.errors import DataError, unknown
from latentdc.types import DataSpec

_LOG = logging.getLogger(__name__)


class Data(NamedTuple):
    """A data set: the training images, and the test images where it has some (only for the final figures)."""

    train: ClassStore
    test: ClassStore | None


def open_data(
    source: str | Path,
    *,
    size: int | None = None,
    classes: Sequence[str | int] | None = None,
    download: bool = False,
    limit: int | None = None,
    mirror: bool | None = None,
    hold_out: bool = False,
) -> Data:
    """Open a data set.

    Args:
        source: ``fashion-mnist-mini`` (comes with latentdc), ``fashion-mnist``, ``cifar10`` (searched in
            ``$LATENTDC_DATA``, ``./data``, the cache and, for Fashion-MNIST, Debian's folder); or a folder with one
            sub-folder per class; or a parquet file or folder; or a folder of idx files.
        size: bring every image to ``size × size``: the shorter side is resized (bilinear, antialiased), then the
            central square is cut out. None: as they are, and they must agree.
        classes: keep these classes only, renumbered in this order: see ``class_numbers``.
        download: allow torchvision to download a named data set that is not found.
        limit: keep the first images of each training class, this many; the test split stays whole.
        mirror: whether a mirrored image keeps its label; None: yes.
        hold_out: leave the held-out slice of the training images out (``ClassStore.holdout``), to judge choices on it.

    Statistics are the published ones for a named data set, also when its unresized files are given by path, and
    otherwise those of the training images.

    Raises:
        DataError: not found, unreadable, or unfit for the request.
        MissingExtraError: parquet without the extra ``datasets``.
    """
    if size is not None and size < 1:
        raise DataError(f"--size {size}: give the side of an image in pixels, at least 1.")
    raw = read_named(str(source), size=size, download=download) if source in PUBLISHED else _read_path(source, size)
    data = _stores(raw, str(source), mirror is None or mirror)
    if classes is not None:
        data = _choose(data, classes)
    train = data.train if limit is None else data.train.limit(limit)
    return Data(train.holdout()[0] if hold_out else train, data.test)


def class_numbers(classes: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """Numbers of some classes: a text is a name, or else a number in digits; an integer is always a number.

    Raises:
        DataError: no such class, one that is named twice, or none at all.
    """
    if not classes:
        raise DataError(f"the class subset is empty. Name classes ({', '.join(names)}), or leave it out (--classes).")
    numbers: list[int] = []
    for given in classes:
        if isinstance(given, str) and given in names:
            numbers.append(names.index(given))
        elif str(given).isdecimal() and int(given) < len(names):
            numbers.append(int(given))
        else:
            raise DataError(f"class {unknown('class', str(given), names)}")
    if len(set(numbers)) != len(numbers):
        raise DataError(f"the class subset {', '.join(map(str, classes))} names a class twice.")
    return numbers


def _read_path(source: str | Path, size: int | None) -> Raw:
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(
            f"data set {unknown('name', str(source), PUBLISHED)} It is not a folder or file either: give a name, "
            "a folder with one sub-folder per class, or parquet."
        )
    path = path.resolve()
    if parquet_files(path):
        return read_parquet(path, size)
    if path.is_file():
        raise DataError(f"{path}: not a parquet file. Give a folder with one sub-folder per class, or parquet.")
    if find_idx(path, "train-images-idx3-ubyte"):
        train, test = (Split(*read_split(path, prefix)) for prefix in ("train", "t10k"))
        names = tuple(str(c) for c in range(int(train.labels.max()) + 1))
        return Raw(
            path.name,
            names,
            train._replace(images=resize(train.images, size)),
            test._replace(images=resize(test.images, size)),
        )
    return read_folder(path, size)


def _stores(raw: Raw, source: str, mirror: bool) -> Data:
    shape = raw.train.images.shape
    mean, std = channel_statistics(raw.train.images)
    spec = DataSpec((shape[1], shape[2], shape[3]), raw.class_names, mean, std, mirror, raw.name)
    train = ClassStore(raw.train.images, raw.train.labels, spec)
    train.spec = _published(train.spec, source)
    test = raw.test
    return Data(train, test and ClassStore(test.images, test.labels, train.spec, allow_empty=True))


def _published(spec: DataSpec, source: str) -> DataSpec:
    """Published statistics and names where the source names a known set or has exactly its contents."""
    name = next((n for n, known in PUBLISHED.items() if known.fingerprint == spec.fingerprint), None)
    if source in PUBLISHED:
        known = PUBLISHED[source]
        if name != source and spec.image_shape == known.image_shape:
            _LOG.warning("%s: the training images found are not the published ones (other contents)", source)
        name = source
    if name is None:
        return spec
    known = PUBLISHED[name]
    return dataclasses.replace(spec, name=name, class_names=known.class_names, mean=known.mean, std=known.std)


def _choose(data: Data, classes: Sequence[str | int]) -> Data:
    try:
        numbers = class_numbers(classes, data.train.spec.class_names)
    except DataError as error:
        raise DataError(f"{data.train.spec.name}: {error}") from None
    train = data.train.choose(numbers)
    if data.test is None:
        return Data(train, None)
    test = data.test.choose(numbers)
    test.spec = train.spec
    return Data(train, test)
