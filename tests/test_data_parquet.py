from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdc.data.sources import open_data
from latentdc.errors import DataError, MissingExtraError

pytestmark = pytest.mark.usefixtures("no_data_elsewhere")


def picture(value: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def write_parquet(path: Path, labels: list, *, names: list[str] | None = None, column: str = "label", start: int = 0):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(len(labels)):
        file = path.parent / "one.png"
        picture(start + i).save(file)
        rows.append({"bytes": file.read_bytes(), "path": f"{i}.png"})
        file.unlink()
    table = pa.table({"image": pa.array(rows), column: pa.array(labels)})
    if names is not None:
        features = {"image": {"_type": "Image"}, column: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def test_cifar10_from_a_folder_of_parquet(tmp_path, monkeypatch):
    root = tmp_path / "sets" / "cifar10"
    write_parquet(root / "train-00000-of-00002.parquet", list(range(10)))
    write_parquet(root / "train-00001-of-00002.parquet", list(range(10)), start=50)
    write_parquet(root / "test-00000-of-00001.parquet", list(range(10)), start=90)
    monkeypatch.setenv("LATENTDC_DATA", str(tmp_path / "sets"))
    data = open_data("cifar10")
    assert data.train.counts == (2,) * 10
    assert data.test is not None
    assert len(data.test) == 10
    assert data.train.spec.class_names[3] == "cat"
    assert data.train.spec.mean == (0.4914, 0.4822, 0.4465)
    expected = torch.from_numpy(np.array(picture(53))).permute(2, 0, 1)
    assert torch.equal(data.train.of_class(3)[1], expected)


def test_parquet_with_class_names_in_its_metadata(tmp_path):
    path = write_parquet(tmp_path / "birds.parquet", [1, 0, 1], names=["wren", "robin"])
    train = open_data(path).train
    assert train.spec.class_names == ("wren", "robin")
    assert train.spec.name == "birds"
    assert torch.equal(train.images[0], torch.from_numpy(np.array(picture(1))).permute(2, 0, 1))
    assert torch.equal(train.images[1], torch.from_numpy(np.array(picture(0))).permute(2, 0, 1))


def test_parquet_with_text_labels_and_a_test_file(tmp_path):
    write_parquet(tmp_path / "set" / "data" / "train-0.parquet", ["wren", "robin", "wren"], column="target")
    write_parquet(tmp_path / "set" / "data" / "test-0.parquet", ["wren"], column="target", start=7)
    data = open_data(tmp_path / "set")
    assert data.train.spec.class_names == ("robin", "wren")
    assert data.test is not None
    assert data.test.counts == (0, 1)
    write_parquet(tmp_path / "set" / "data" / "test-0.parquet", ["crow"], column="target")
    with pytest.raises(DataError, match=r"label 'crow' is not among the classes \(robin, wren\)"):
        open_data(tmp_path / "set")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 2], ["a", "b"], r"set\.parquet, row 2: label 2 is out of range; with 2 classes labels are 0 to 1"),
        ([0, 2, 1, 1, 0, -3, -1], None, r"set\.parquet, row 5: label -3 \(and 1 more\) is out of range"),
        ([0, 1, 2**60], None, rf"set\.parquet, row 2: label {2**60} is too large: 3 rows have at most as many classes"),
        ([0, None, 1], None, "row 1: no label in column 'label'"),
        ([0, 0, 0], ["only"], "only 1 class"),
        ([0, 2, 2], None, "no image of class '1'"),
    ],
)
def test_unfit_parquet_labels_are_refused(tmp_path, labels, names, message):
    with pytest.raises(DataError, match=message):
        open_data(write_parquet(tmp_path / "set.parquet", labels, names=names))


def test_a_wrong_label_is_named_with_its_file_and_row(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [1, 0, 1], names=["a", "b"])
    write_parquet(tmp_path / "train-1.parquet", [1, 0, 9, 0], names=["a", "b"])
    with pytest.raises(DataError, match=r"train-1\.parquet, row 2: label 9 is out of range; with 2 classes"):
        open_data(tmp_path)
    write_parquet(tmp_path / "train-1.parquet", [1, 0], names=["a", "b"])
    write_parquet(tmp_path / "test-0.parquet", [1, 2], names=["a", "b"])
    with pytest.raises(DataError, match=r"test-0\.parquet, row 1: label 2 is out of range"):
        open_data(tmp_path)


def test_unfit_parquet_files_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write_parquet(tmp_path / "set.parquet", [0, 1], column="species")
    with pytest.raises(DataError, match=r"no label column among image, species. Name it 'label'"):
        open_data(path)
    pq.write_table(pa.table({"image": [b"nonsense", b"more"], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="row 0: not a readable image"):
        open_data(path)
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="row 0: no image bytes in column 'image'"):
        open_data(path)
    path.write_bytes(b"PAR1 this is no parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        open_data(path)
    other = tmp_path / "table.csv"
    other.write_text("a,b")
    with pytest.raises(DataError, match="not a parquet file"):
        open_data(other)


def test_a_damaged_parquet_file_is_read_or_named(tmp_path):
    path = write_parquet(tmp_path / "set.parquet", ["wren", "robin", "wren"], names=["wren", "robin"])
    sound, rng = path.read_bytes(), np.random.default_rng(0)
    named = 0
    for _ in range(200):
        data = bytearray(sound)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            open_data(path)
        except DataError as error:
            named += "not a readable parquet file" in str(error)
    assert named
    text = sound.replace(b"wren", b"\xff\xffen")
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"set\.parquet: not a readable parquet file .*codec can't decode"):
        open_data(path)


def test_parquet_without_its_extra_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "set.parquet"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latentdc\[datasets\]'"):
        open_data(path)
