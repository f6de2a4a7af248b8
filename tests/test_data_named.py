from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from latentdc.data import idx, make_mini, named
from latentdc.data.sources import open_data
from latentdc.errors import DataError

REAL_DATA = os.environ.get("LATENTDC_DATA")
pytestmark = pytest.mark.usefixtures("no_data_elsewhere")


def write_idx_set(folder: Path, *, per_class: int = 3, classes: int = 10) -> Path:
    folder.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    for prefix in ("train", "t10k"):
        labels = torch.arange(classes, dtype=torch.uint8).repeat(per_class)
        images = torch.randint(0, 256, (len(labels), 28, 28), generator=rng).to(torch.uint8)
        idx.write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        idx.write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder


def test_the_embedded_set_needs_nothing_but_the_package():
    data = open_data("fashion-mnist-mini")
    assert data.train.counts == (1000,) * 10
    assert data.test is not None
    assert data.test.counts == (200,) * 10
    spec = data.train.spec
    assert spec.image_shape == (1, 28, 28)
    assert (spec.mean, spec.std) == ((0.2861,), (0.3530,))
    assert spec.class_names[0] == "T-shirt/top"
    assert spec.fingerprint == named.PUBLISHED["fashion-mnist-mini"].fingerprint
    assert data.test.spec == spec
    assert sum(f.stat().st_size for f in named.EMBEDDED.iterdir()) < 6e6
    assert "MIT" in (named.EMBEDDED / "LICENSE").read_text()


def test_the_embedded_set_is_made_by_the_command_in_its_readme(tmp_path, monkeypatch):
    source = write_idx_set(tmp_path / "full", per_class=5)
    monkeypatch.setattr(make_mini, "PER_CLASS", {"train": 2, "t10k": 1})
    make_mini.main([str(source), str(tmp_path / "mini")])
    images, labels = idx.read_split(tmp_path / "mini", "train")
    full, all_labels = idx.read_split(source, "train")
    assert torch.bincount(labels).tolist() == [2] * 10
    assert torch.equal(images, full[:20])
    assert torch.equal(labels, all_labels[:20])
    assert "python -m latentdc.data.make_mini" in (named.EMBEDDED / "README.md").read_text()


@pytest.mark.parametrize("place", ["", "FashionMNIST/raw", "fashion-mnist"])
def test_fashion_mnist_is_found_under_the_environment_variable(tmp_path, monkeypatch, caplog, place):
    write_idx_set(tmp_path / "sets" / place)
    monkeypatch.setenv("LATENTDC_DATA", str(tmp_path / "sets"))
    data = open_data("fashion-mnist")
    assert data.train.counts == (3,) * 10
    assert data.train.spec.name == "fashion-mnist"
    assert "not the published ones" in caplog.text


def test_the_environment_variable_comes_before_debians_folder(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "debian", per_class=1)
    assert open_data("fashion-mnist").train.counts == (1,) * 10
    write_idx_set(tmp_path / "mine", per_class=2)
    monkeypatch.setenv("LATENTDC_DATA", str(tmp_path / "mine"))
    assert open_data("fashion-mnist").train.counts == (2,) * 10


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_missing_data_set_says_where_it_was_looked_for(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTDC_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"(?s)was not found.*nowhere.*Set LATENTDC_DATA.*--download"):
        open_data(name)


def test_the_published_files_by_path_are_the_published_set(caplog):
    data = open_data(named.EMBEDDED)
    assert data.train.spec == open_data("fashion-mnist-mini").train.spec
    assert caplog.text == ""


def test_cifar10_from_a_torchvision_root(tmp_path, monkeypatch):
    import pickle

    from torchvision.datasets import CIFAR10

    folder = tmp_path / "sets" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    stored = {name: rng.integers(0, 256, (20, 3072), dtype=np.uint8) for name in files}
    for name, data in stored.items():
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": list(range(10)) * 2}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: os.path.isfile(path))
    monkeypatch.setenv("LATENTDC_DATA", str(tmp_path / "sets"))
    data = open_data("cifar10")
    assert data.train.counts == (10,) * 10
    first = stored["data_batch_1"][7].reshape(3, 32, 32)
    assert torch.equal(data.train.of_class(7)[0], torch.from_numpy(first))
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match="CIFAR-10 files are incomplete or damaged"):
        open_data("cifar10")


def test_a_named_set_takes_a_size(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "debian")
    data = open_data("fashion-mnist", size=32)
    assert data.train.spec.image_shape == (1, 32, 32)
    assert data.train.spec.mean == (0.2861,)


def test_classes_are_chosen_by_name_or_number_and_limited():
    data = open_data("fashion-mnist-mini", classes=["Sneaker", 2], limit=5)
    assert data.train.spec.class_names == ("Sneaker", "Pullover")
    assert data.train.counts == (5, 5)
    assert data.test is not None
    assert data.test.counts == (200, 200)
    whole = open_data("fashion-mnist-mini")
    assert torch.equal(data.train.of_class(1), whole.train.of_class(2)[:5])
    assert data.train.spec.fingerprint != whole.train.spec.fingerprint


def test_unfit_requests_name_the_way_out():
    with pytest.raises(DataError, match=r"only 1 class \(Bag\)"):
        open_data("fashion-mnist-mini", classes=["Bag"])
    with pytest.raises(DataError, match=r'"sneaker": no such class. Did you mean "Sneaker"'):
        open_data("fashion-mnist-mini", classes=["sneaker", "Bag"])
    with pytest.raises(DataError, match="names a class twice"):
        open_data("fashion-mnist-mini", classes=["Bag", 8])
    with pytest.raises(DataError, match=r"1001 images of class .* it has 1000"):
        open_data("fashion-mnist-mini", limit=1001)
    with pytest.raises(DataError, match='Did you mean "fashion-mnist-mini"'):
        open_data("fashion-mnist-mine")
    with pytest.raises(DataError, match="--size 0"):
        open_data("fashion-mnist-mini", size=0)


def test_truncated_and_foreign_idx_files_are_refused(tmp_path):
    folder = write_idx_set(tmp_path / "set")
    target = folder / "train-images-idx3-ubyte.gz"
    good = target.read_bytes()
    target.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"train-images.*cannot be read.*Fetch the file again"):
        open_data(folder)
    target.write_bytes(gzip.compress(gzip.decompress(good)[:-100]))
    with pytest.raises(DataError, match="truncated or damaged: 23420 bytes of data, its header promises 23520"):
        open_data(folder)
    target.write_bytes(gzip.compress(b"hello world"))
    with pytest.raises(DataError, match="not an idx file of bytes"):
        open_data(folder)
    target.write_bytes(b"not gzip at all")
    with pytest.raises(DataError, match="cannot be read"):
        open_data(folder)
    target.write_bytes(good)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.* is missing"):
        open_data(folder)


def test_an_idx_label_out_of_range_is_refused(tmp_path, monkeypatch):
    folder = write_idx_set(tmp_path / "set", classes=11)
    monkeypatch.setenv("LATENTDC_DATA", str(folder))
    with pytest.raises(DataError, match=r"labels are out of range, the first is 10 at row 10"):
        open_data("fashion-mnist")


_MEASURE = """
import re, sys
from latentdc.data.sources import open_data
import PIL.WebPImagePlugin, pyarrow.parquet
open_data("fashion-mnist-mini", limit=10)
# Not ru_maxrss: it remembers the process that started this one.
told = lambda name: 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
before = told("VmRSS")
data = open_data("cifar10")
peak = told("VmHWM")
tensors = data.train.images.nbytes + data.train.labels.nbytes + data.train.digests.nbytes
sys.stdout.write(f"{len(data.train)} {len(data.test)} {tensors} {peak - before}")
"""


@pytest.mark.slow
def test_a_cifar10_store_costs_under_200_mb():
    assert REAL_DATA is not None, "set $LATENTDC_DATA to a folder that holds CIFAR-10"
    root = Path(__file__).parents[1]
    env = {**os.environ, "LATENTDC_DATA": str(REAL_DATA), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", _MEASURE], env=env, capture_output=True, text=True, check=True)
    train, test, tensors, peak = map(int, done.stdout.split())
    assert (train, test) == (50000, 10000)
    assert tensors < 200e6
    assert peak < 300e6  # both splits are 184 MB of pixels; a second copy of the training images would pass 330 MB
