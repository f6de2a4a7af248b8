"""Decoded images as files: what is written is what was decoded, rounded to uint8."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdc.data.folders import folder_names
from latentdc.errors import InputError, MissingExtraError
from latentdc.pipelines import export
from latentdc.portable.pipeline import DatasetSynthesisOutput
from latentdc.portable.pipeline import export as as_type

NAMES = ("T-shirt/top", "ankle boot")


def batch(output_type: str, *, soft: bool = False) -> DatasetSynthesisOutput:
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 0, 1, 1])
    if soft:
        return DatasetSynthesisOutput(
            images=as_type(x, output_type), labels=torch.tensor([[0.75, 0.25]] * 4), weights=torch.arange(4.0)
        )
    return DatasetSynthesisOutput(images=as_type(x, output_type), labels=labels)


def levels() -> np.ndarray:
    return (batch("pt").images * 255).round().to(torch.uint8).numpy()


def test_folder_holds_every_image_by_class(tmp_path: Path) -> None:
    folder = export.write_folder(tmp_path / "images", [batch("pil")], NAMES)
    records = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [record["file_name"] for record in records] == [
        "T-shirt_top/00000.png",
        "T-shirt_top/00001.png",
        "ankle boot/00000.png",
        "ankle boot/00001.png",
    ]
    assert [(record["label"], record["class"]) for record in records] == [
        (0, NAMES[0]),
        (0, NAMES[0]),
        (1, NAMES[1]),
        (1, NAMES[1]),
    ]
    for record, level in zip(records, levels(), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / record["file_name"])), level[0])


def test_folder_keeps_soft_labels_and_weights(tmp_path: Path) -> None:
    folder = export.write_folder(tmp_path / "images", [batch("pil", soft=True)], NAMES)
    records = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [record["soft_label"] for record in records] == [[0.75, 0.25]] * 4
    assert [record["weight"] for record in records] == [0.0, 1.0, 2.0, 3.0]
    assert not (folder / "ankle boot").exists(), "a class without images leaves no empty folder"


def test_folder_refuses_to_mix_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        export.write_folder(tmp_path, [batch("pil")], NAMES)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_folder_names_are_safe_and_distinct() -> None:
    assert folder_names(["a/b", "a:b", "..", "ok"]) == ["a_b", "a_b-1", "2", "ok"]
    assert folder_names(["C", "C++", "C#", "c"]) == ["C", "C++", "C_", "c-3"], "some systems know no case"
    assert folder_names(["a/b", "a_b"]) == ["a_b-0", "a_b"]
    assert folder_names(["a_b-2", "a/b", "a:b"]) == ["a_b-2", "a_b", "a_b-2-2"]


def test_parquet_is_read_with_class_names(tmp_path: Path) -> None:
    import datasets

    path = export.write_parquet(tmp_path / "images.parquet", [batch("pil")], NAMES)
    read = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert read.features["label"].names == list(NAMES)
    assert read["label"] == [0, 0, 1, 1]
    for image, level in zip(read["image"], levels(), strict=True):
        np.testing.assert_array_equal(np.asarray(image), level[0])


def test_parquet_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"latentdc\[datasets\]"):
        export.write_parquet(tmp_path / "images.parquet", [batch("pil")], NAMES)


def test_tensor_file_loads_without_pickled_code(tmp_path: Path) -> None:
    path = export.write_tensors(tmp_path / "deep" / "images.pt", [batch("pt"), batch("pt")], NAMES)
    read = torch.load(path, weights_only=True)
    np.testing.assert_array_equal(read["images"].numpy(), np.concatenate([levels(), levels()]))
    assert read["labels"].tolist() == [0, 0, 1, 1] * 2
    assert read["class_names"] == list(NAMES)


def read_shards(folder: Path) -> list[dict[str, bytes]]:
    """Samples of all shards in order, as readers of the convention group them: by the name up to the first dot."""
    samples: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for entry in tar:
                key, kind = entry.name.split(".", 1)
                samples.setdefault(key, {})[kind] = tar.extractfile(entry).read()
    return list(samples.values())


def test_webdataset_shards_are_read_back(tmp_path: Path) -> None:
    folder = export.write_webdataset(tmp_path / "shards", [batch("pil"), batch("pil")], NAMES, images_per_shard=3)
    assert sorted(path.name for path in folder.iterdir()) == [
        "classes.json",
        *(f"images-00000{n}.tar" for n in range(3)),
    ]
    assert json.loads((folder / "classes.json").read_text()) == list(NAMES)
    samples = read_shards(folder)
    assert [int(sample["cls"]) for sample in samples] == [0, 0, 1, 1] * 2
    for sample, level in zip(samples, np.concatenate([levels(), levels()]), strict=True):
        assert sample.keys() == {"png", "cls"}
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sample["png"]))), level[0])
    with tarfile.open(folder / "images-000000.tar") as tar:
        assert tar.getnames() == [f"00000{n}.{kind}" for n in range(3) for kind in ("png", "cls")]


def test_webdataset_bytes_repeat_and_keep_soft_labels(tmp_path: Path) -> None:
    first, again = (export.write_webdataset(tmp_path / n, [batch("pil", soft=True)], NAMES) for n in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    told = [json.loads(sample["json"]) for sample in read_shards(first)]
    assert told == [{"weight": float(n), "soft_label": [0.75, 0.25]} for n in range(4)]
    with pytest.raises(InputError, match="images_per_shard = 0: give at least 1"):
        export.write_webdataset(tmp_path / "c", [], NAMES, images_per_shard=0)


FOLDERS = (export.write_folder, export.write_webdataset)


@pytest.mark.parametrize("write", [*FOLDERS, export.write_parquet, export.write_tensors])
def test_a_broken_export_leaves_what_was_there(write: Callable[..., Path], tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    def batches() -> Iterator[DatasetSynthesisOutput]:
        yield batch("pt" if write is export.write_tensors else "pil")
        raise Broken

    out = tmp_path / "out"
    with pytest.raises(Broken):
        write(out, batches(), NAMES)
    assert not list(tmp_path.iterdir())
    if write in FOLDERS:
        out.mkdir()
    else:
        out.write_text("older")
    write(out, [batch("pt" if write is export.write_tensors else "pil")], NAMES)
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_mode & 0o444 == 0o444
