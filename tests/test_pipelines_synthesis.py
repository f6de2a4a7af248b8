"""The synthesis pipeline: what it loads, decodes and writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdc.bundle import load_bundle, save_bundle
from latentdc.errors import BundleError, InputError
from latentdc.pipelines.synthesis import DatasetSynthesisOutput, DatasetSynthesisPipeline
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.types import DataSpec


@pytest.fixture(scope="module")
def bundle(tiny_spec: DataSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    z = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return save_bundle(
        tmp_path_factory.mktemp("bundle") / "tiny",
        bank=LatentBank.of({"x": z}, [3, 2, 2]),
        decoder=PixelsDecoder([1, 8, 8], list(tiny_spec.mean), list(tiny_spec.std)),
        formation=TilesFormation(2),
        spec=tiny_spec,
        provenance={"recipe": "none"},
    )


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> DatasetSynthesisPipeline:
    pipe = DatasetSynthesisPipeline.from_pretrained(bundle)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_output_has_hugging_face_manners(pipe: DatasetSynthesisPipeline) -> None:
    out = pipe(images_per_class=2, output_type="pt")
    assert isinstance(out, DatasetSynthesisOutput)
    assert out.images.shape == (6, 1, 8, 8)
    assert out["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert out.weights is None
    images, labels, _ = pipe(images_per_class=2, output_type="pt", return_dict=False)
    assert torch.equal(images, out.images)
    assert torch.equal(labels, out.labels)


def test_pil_and_array_are_the_same_images(pipe: DatasetSynthesisPipeline) -> None:
    pil, array = pipe(output_type="pil").images, pipe(output_type="np").images
    assert len(pil) == 28
    assert pil[0].mode == "L"
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in pil]), (array[..., 0] * 255).round())


def test_classes_by_name_and_number(pipe: DatasetSynthesisPipeline) -> None:
    by_name = pipe(classes=["class-2", "class-0"], output_type="pt")
    assert by_name.labels.tolist() == [2] * 8 + [0] * 12
    assert torch.equal(by_name.images, pipe(classes=[2, 0], output_type="pt").images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_per_class": 9}, "at most 8"),
        ({"images_per_class": 0}, "1 to 8"),
        ({"classes": ["hat"]}, "class-0, class-1, class-2"),
    ],
)
def test_impossible_requests_say_what_would_do(pipe: DatasetSynthesisPipeline, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipe(**arguments)
    with pytest.raises(InputError, match=message):
        next(pipe.iter_batches(**arguments))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_are_the_whole_set_in_order(pipe: DatasetSynthesisPipeline, batch_size: int) -> None:
    whole = pipe(images_per_class=5, output_type="pt")
    parts = list(pipe.iter_batches(batch_size, images_per_class=5))
    torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images)
    assert torch.cat([part.labels for part in parts]).tolist() == whole.labels.tolist()


def test_batches_are_decoded_on_demand(pipe: DatasetSynthesisPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = pipe.decoder.forward
    monkeypatch.setattr(pipe.decoder, "forward", lambda *a: calls.append(1) or forward(*a))
    batches = pipe.iter_batches(2)
    assert calls == []
    next(batches)
    assert len(calls) == 1


def test_folder_holds_what_the_pipeline_decodes(pipe: DatasetSynthesisPipeline, tmp_path: Path) -> None:
    folder = pipe.to_folder(tmp_path / "images", images_per_class=3)
    records = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for record, image in zip(records, pipe(images_per_class=3).images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / record["file_name"])), np.asarray(image))


def test_damage_and_absence_are_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--out"):
        DatasetSynthesisPipeline.from_pretrained(tmp_path / "nothing")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(bundle)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    weights = next((copy / "bank").glob("*.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(BundleError, match="bank"):
        DatasetSynthesisPipeline.from_pretrained(copy)


def test_dtype_is_the_decoders(bundle: Path) -> None:
    pipe = DatasetSynthesisPipeline.from_pretrained(bundle, dtype=torch.float64)
    assert pipe.bank.z["x"].dtype == torch.float32
    assert pipe(images_per_class=1, output_type="pt").images.dtype == torch.float32


def same(one: DatasetSynthesisPipeline, other: DatasetSynthesisPipeline) -> bool:
    other.set_progress_bar_config(disable=True)
    return torch.equal(one(output_type="pt").images, other(output_type="pt").images)


def test_saved_again_it_is_a_bundle(bundle: Path, tmp_path: Path) -> None:
    source = shutil.copytree(bundle, tmp_path / "source")
    Image.new("L", (2, 2)).save(source / "grid.png")
    pipe = DatasetSynthesisPipeline.from_pretrained(source)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "copy")
    copy = load_bundle(tmp_path / "copy")
    assert copy.provenance == load_bundle(source).provenance
    assert copy.spec == load_bundle(source).spec
    assert (copy.path / "grid.png").read_bytes() == (source / "grid.png").read_bytes()
    assert same(pipe, DatasetSynthesisPipeline.from_pretrained(tmp_path / "copy"))
    pipe.save_pretrained(source)
    assert same(pipe, DatasetSynthesisPipeline.from_pretrained(source))
    loose = DatasetSynthesisPipeline(pipe.decoder, pipe.bank, pipe.formation)
    with pytest.raises(InputError, match=r"latentdc\.save_bundle"):
        loose.save_pretrained(tmp_path / "loose")


def test_a_bundle_set_aside_is_found(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / ".set.replaced")
    assert DatasetSynthesisPipeline.from_pretrained(tmp_path / "set").class_names
    assert (tmp_path / "set").is_dir()


def test_no_class_at_all_is_refused(pipe: DatasetSynthesisPipeline) -> None:
    with pytest.raises(InputError, match="none were given"):
        pipe(classes=[])
    with pytest.raises(InputError, match="none were given"):
        next(pipe.iter_batches(classes=[]))
