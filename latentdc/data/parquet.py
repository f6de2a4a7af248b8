"""Parquet files with an image and a label column, as ``datasets`` writes them (extra ``datasets``)."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from latentdc.data.decode import ImageStack, Raw, Split, open_image
from latentdc.errors import DataError, MissingExtraError

_IMAGE_NAMES = ("image", "img", "images", "picture", "pixels")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "y")
_SPLIT_NAME = re.compile(r"(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)
_ROWS = 64


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    names: tuple[str, ...]
    """Class names from the file's own metadata, or empty."""


@dataclass(frozen=True)
class _Labels:
    """Labels of several files, row after row."""

    values: list[Any]
    files: list[Path]
    starts: list[int]
    """Where the rows of each file begin."""

    def refuse(self, wrong: list[int], why: str) -> NoReturn:
        """Name the first of the rows with a wrong label as its file counts them."""
        place = bisect_right(self.starts, wrong[0]) - 1
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        label = f"label {self.values[wrong[0]]!r}{others}"
        raise DataError(f"{self.files[place]}, row {wrong[0] - self.starts[place]}: {label} {why}")


def parquet_files(path: Path) -> list[Path]:
    """Parquet files of a folder or of its ``data`` sub-folder, in order; or the one file that ``path`` is."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))


def read_parquet(path: Path, size: int | None) -> Raw:
    """All rows of a parquet file or folder; files named ``test…`` (or else ``validation…``) are the test split.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: unreadable files, no image or label column, missing labels, corrupt images, mixed sizes.
    """
    files = parquet_files(path)
    splits: dict[str, list[Path]] = {}
    for file in files:
        found = _SPLIT_NAME.match(file.stem)
        splits.setdefault(found[1].lower() if found else "train", []).append(file)
    training = splits.get("train") or files
    others = [splits[name] for name in ("test", "validation", "valid", "val") if name in splits]
    columns = _columns(training[0])
    labels = _labels(training, columns.label)
    names = columns.names or _names_of(labels)
    train = _read_split(training, columns.image, _numbers(labels, names), size, None)
    stem = path.stem if path.is_file() else path.name
    if not others or training is files:
        return Raw(stem, names, train, None)
    numbers = _numbers(_labels(others[0], columns.label), names)
    shape = train.images.shape
    test = _read_split(others[0], columns.image, numbers, size, (shape[1], shape[2], shape[3]))
    return Raw(stem, names, train, test)


def _read_split(
    files: list[Path], column: str, labels: torch.Tensor, size: int | None, like: tuple[int, int, int] | None
) -> Split:
    """Images decoded straight to their place in class order, so that sorting needs no second copy."""
    order = torch.sort(labels, stable=True).indices
    slots = torch.empty_like(order)
    slots[order] = torch.arange(len(order))
    stack = ImageStack(len(labels), size, like)
    for slot, (origin, value) in zip(slots.tolist(), _values(files, column), strict=True):
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise DataError(f"{origin}: no image bytes in column {column!r}. Store the encoded image file in the row.")
        stack.put(slot, open_image(data, origin), origin)
    _release()
    return Split(stack.images, labels[order])


def _values(files: list[Path], column: str) -> Iterator[tuple[str, Any]]:
    for file in files:
        row = 0
        for values in _batches(file, column):
            for value in values:
                yield f"{file}, row {row}", value
                row += 1


def _batches(file: Path, column: str) -> Iterator[list[Any]]:
    opened = _open(file)
    with _reading(file):
        for batch in opened.iter_batches(batch_size=_ROWS, columns=[column], use_threads=False):
            yield batch.column(0).to_pylist()


def _labels(files: list[Path], column: str) -> _Labels:
    values: list[Any] = []
    starts: list[int] = []
    for file in files:
        starts.append(len(values))
        part = [value for batch in _batches(file, column) for value in batch]
        missing = next((row for row, value in enumerate(part) if value is None), None)
        if missing is not None:
            raise DataError(f"{file}, row {missing}: no label in column {column!r}. Give every row a label.")
        values += part
    if not values:
        raise DataError(f"{files[0]}: no rows.")
    return _Labels(values, files, starts)


def _names_of(labels: _Labels) -> tuple[str, ...]:
    values = labels.values
    if not all(isinstance(label, int) for label in values):
        return tuple(sorted({str(label) for label in values}))
    # A damaged number may be astronomically large, and a class for each number below it would fill the memory.
    if wrong := [row for row, label in enumerate(values) if label >= len(values)]:
        labels.refuse(wrong, f"is too large: {len(values)} rows have at most as many classes, numbered from 0.")
    return tuple(str(i) for i in range(max(values) + 1))


def _numbers(labels: _Labels, names: tuple[str, ...]) -> torch.Tensor:
    values = labels.values
    if all(isinstance(label, int) for label in values):
        if wrong := [row for row, label in enumerate(values) if not 0 <= label < len(names)]:
            labels.refuse(wrong, f"is out of range; with {len(names)} classes labels are 0 to {len(names) - 1}.")
        return torch.from_numpy(np.asarray(values, dtype=np.int64))
    known = {name: number for number, name in enumerate(names)}
    if wrong := [row for row, label in enumerate(values) if str(label) not in known]:
        labels.refuse(wrong, f"is not among the classes ({', '.join(names)}).")
    return torch.tensor([known[str(label)] for label in values])


def _columns(file: Path) -> _Columns:
    opened = _open(file)
    with _reading(file):
        schema = opened.schema_arrow
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        kinds = {name: feature.get("_type", "") for name, feature in stored.items() if isinstance(feature, dict)}

    def choose(kind: str, usual: tuple[str, ...], option: str) -> str:
        found = [name for name in schema.names if kinds.get(name) == kind]
        found += [name for name in usual if name in schema.names]
        if not found:
            raise DataError(
                f"{file}: no {option} column among {', '.join(schema.names)}. Name it {option!r} (known names: "
                f"{', '.join(usual)}), or write the file with datasets' {kind} feature."
            )
        return str(found[0])

    label = choose("ClassLabel", _LABEL_NAMES, "label")
    names = tuple(str(name) for name in stored.get(label, {}).get("names", ()))
    return _Columns(choose("Image", _IMAGE_NAMES, "image"), label, names)


def _release() -> None:
    """Give arrow's read buffers back to the system; a store then costs its pixels and little else."""
    from pyarrow.lib import default_memory_pool

    default_memory_pool().release_unused()


def _open(file: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtraError(
            f"{file}: reading parquet needs the extra 'datasets': pip install 'latentdc[datasets]'"
        ) from error
    opener: Callable[[Path], Any] = ParquetFile
    with _reading(file):
        return opener(file)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Damage shows when a file is opened, or only when its pages are read; either way the error names the file."""
    try:
        yield
    except Exception as error:  # Besides arrow's own: OSError, and what decoding of text and metadata raises.
        raise DataError(f"{file}: not a readable parquet file ({error}). Fetch it again.") from error
