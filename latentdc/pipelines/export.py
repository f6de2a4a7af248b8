"""Decoded images as files: class folders, parquet, WebDataset shards or a tensor file; pixels are rounded to uint8."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from latentdc.atomic import replacing
from latentdc.data.folders import folder_names
from latentdc.errors import InputError, MissingExtraError
from latentdc.portable.pipeline import DatasetSynthesisOutput

CLASSES = "classes.json"
"""Names of the classes beside the shards of a WebDataset."""
IMAGES_PER_SHARD = 10_000


def write_folder(folder: Path, batches: Iterable[DatasetSynthesisOutput], class_names: Sequence[str]) -> Path:
    """``<folder>/<class>/<number>.png`` and ``metadata.jsonl``: file name, label, and any weight or soft label.

    The folder appears whole or not at all: it is written beside its place and renamed.

    Raises:
        InputError: the folder exists and is not empty.
    """
    with _whole(folder) as building:
        _write_classes(building, batches, class_names)
    return folder


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its place when all is written.

    Raises:
        InputError: the place is taken.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder. Choose another, or empty it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield building
        building.chmod(0o755)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_classes(folder: Path, batches: Iterable[DatasetSynthesisOutput], class_names: Sequence[str]) -> None:
    names = folder_names(class_names)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    written = [0] * len(names)
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for image, record in _records(batches):
            label = record["label"]
            file_name = f"{names[label]}/{written[label]:05d}.png"
            image.save(folder / file_name)
            written[label] += 1
            lines.write(json.dumps({"file_name": file_name, "class": class_names[label], **record}) + "\n")
    for name, count in zip(names, written, strict=True):
        if not count:
            (folder / name).rmdir()


def write_webdataset(
    folder: Path,
    batches: Iterable[DatasetSynthesisOutput],
    class_names: Sequence[str],
    *,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Path:
    """Tar shards ``<folder>/images-000000.tar`` … in WebDataset's convention, and ``classes.json``: names in order.

    Image n is the files ``n.png`` (six digits) and ``n.cls`` (the class as a decimal number), and where the set stores
    them ``n.json`` with ``weight`` and ``soft_label``. Equal images give equal bytes: times and owners are left out.

    Raises:
        InputError: the folder exists and is not empty, or less than one image a shard.
    """
    if images_per_shard < 1:
        raise InputError(f"images_per_shard = {images_per_shard}: give at least 1.")
    with _whole(folder) as building:
        records = enumerate(_records(batches))
        while some := list(islice(records, images_per_shard)):
            _write_shard(building / f"images-{some[0][0] // images_per_shard:06d}.tar", some)
        (building / CLASSES).write_text(json.dumps(list(class_names), ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def _write_shard(path: Path, records: Iterable[tuple[int, tuple[Any, dict[str, Any]]]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        for number, (image, record) in records:
            more = {name: value for name, value in record.items() if name != "label"}
            parts = {"png": _png(image), "cls": str(record["label"]).encode()}
            parts |= {"json": json.dumps(more).encode()} if more else {}
            for kind, data in parts.items():
                entry = tarfile.TarInfo(f"{number:06d}.{kind}")  # of nobody, at the beginning of time
                entry.size = len(data)
                shard.addfile(entry, io.BytesIO(data))


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path: Path, batches: Iterable[DatasetSynthesisOutput], class_names: Sequence[str]) -> Path:
    """One parquet file: ``image`` (PNG), ``label`` (class names kept) and, where stored, ``weight`` and ``soft_label``.

    Raises:
        MissingExtraError: pyarrow is missing.
    """
    arrow, parquet = _extra("pyarrow"), _extra("pyarrow.parquet")
    rows: list[dict[str, Any]] = []
    for image, record in _records(batches):
        rows.append({"image": {"bytes": _png(image), "path": None}, **record})
    fields: dict[str, Any] = {
        "image": arrow.struct({"bytes": arrow.binary(), "path": arrow.string()}),
        "label": arrow.int64(),
        "weight": arrow.float32(),
        "soft_label": arrow.list_(arrow.float32()),
    }
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(class_names), "_type": "ClassLabel"},
        "weight": {"dtype": "float32", "_type": "Value"},
        "soft_label": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"},
    }
    present = [name for name in fields if rows and name in rows[0]]
    info = {"info": {"features": {name: features[name] for name in present}}}
    schema = arrow.schema([(name, fields[name]) for name in present], metadata={"huggingface": json.dumps(info)})
    with replacing(path) as part:
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), part)
    return path


def write_tensors(path: Path, batches: Iterable[DatasetSynthesisOutput], class_names: Sequence[str]) -> Path:
    """One file for ``torch.load(path, weights_only=True)``: uint8 images, labels, class names, weights where stored."""
    parts = list(batches)
    value: dict[str, Any] = {
        "images": torch.cat([(part.images * 255).round().to(torch.uint8).cpu() for part in parts]),
        "labels": torch.cat([part.labels.cpu() for part in parts]),
        "class_names": list(class_names),
    }
    if parts[0].weights is not None:
        value["weights"] = torch.cat([part.weights.cpu() for part in parts if part.weights is not None])
    with replacing(path) as part:
        torch.save(value, part)
    return path


def _records(batches: Iterable[DatasetSynthesisOutput]) -> Iterator[tuple[Any, dict[str, Any]]]:
    for batch in batches:
        soft = batch.labels.ndim == 2
        for index, image in enumerate(batch.images):
            label = batch.labels[index]
            record: dict[str, Any] = {"label": int(label.argmax() if soft else label)}
            if batch.weights is not None:
                record["weight"] = float(batch.weights[index])
            if soft:
                record["soft_label"] = label.float().tolist()
            yield image, record


def _extra(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(
            "writing parquet needs pyarrow: pip install 'latentdc[datasets]'. Class folders need nothing more."
        ) from None
