from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdc.data.decode import fit, open_image, resize
from latentdc.data.sources import open_data
from latentdc.errors import DataError


def picture(value: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def write_folder(root: Path, counts: dict[str, int], *, mode: str = "RGB", start: int = 0) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(start + i + 100 * len(name), mode=mode).save(root / name / f"{i}.png")
    return root


def test_an_image_folder_with_unequal_classes(tmp_path):
    root = write_folder(tmp_path / "pets", {"dog": 2, "bird": 3, "zebra": 1})
    (root / "dog" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    data = open_data(root)
    assert data.test is None
    assert data.train.spec.class_names == ("bird", "dog", "zebra")
    assert data.train.counts == (3, 2, 1)
    assert data.train.spec.name == "pets"
    assert data.train.spec.image_shape == (3, 8, 8)
    expected = torch.from_numpy(np.array(picture(301))).permute(2, 0, 1)
    assert torch.equal(data.train.of_class(1)[1], expected)
    assert open_data(root, mirror=False).train.spec.mirror is False


def test_train_and_test_folders_and_numeric_class_names(tmp_path):
    write_folder(tmp_path / "set" / "train", {"2": 1, "10": 2}, mode="L")
    write_folder(tmp_path / "set" / "test", {"10": 1}, mode="L")
    data = open_data(tmp_path / "set")
    assert data.train.spec.class_names == ("2", "10")
    assert data.train.spec.image_shape == (1, 8, 8)
    assert data.test is not None
    assert data.test.counts == (0, 1)


def test_grey_images_among_colour_become_colour(tmp_path):
    root = write_folder(tmp_path / "set", {"aa": 1}, mode="L")
    write_folder(root, {"b": 1})
    train = open_data(root).train
    grey = torch.from_numpy(np.array(picture(200, mode="L")))
    assert torch.equal(train.images[0], grey.expand(3, 8, 8))
    assert torch.equal(train.images[1], torch.from_numpy(np.array(picture(100))).permute(2, 0, 1))


def test_colour_test_images_do_not_fit_grey_training_images(tmp_path):
    write_folder(tmp_path / "set" / "train", {"a": 1, "b": 1}, mode="L")
    write_folder(tmp_path / "set" / "test", {"a": 1})
    with pytest.raises(DataError, match="colour image, but the training images are grey"):
        open_data(tmp_path / "set")


def test_a_corrupt_image_is_named(tmp_path):
    root = write_folder(tmp_path / "set", {"a": 2, "b": 2})
    victim = root / "b" / "1.png"
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(DataError, match=r"b/1.png: not a readable image .*Replace or remove it"):
        open_data(root)
    victim.write_bytes(b"these are not the bytes of an image")
    with pytest.raises(DataError, match=r"b/1.png: not a readable image"):
        open_data(root)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "GIF", "BMP", "WEBP", "JPEG"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_damaged_image_is_an_image_or_named(kind):
    file = io.BytesIO()
    picture(1).save(file, kind)
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(file.getvalue())
        data[rng.integers(min(len(data), rng.choice([24, 10_000])))] = rng.integers(256)
        with contextlib.suppress(DataError):
            assert open_image(bytes(data), "cat/1").mode in ("L", "RGB")


def test_a_png_whose_header_is_cut_is_named():
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    data = file.getvalue().replace(b"\x00\x00\x00\x0dIHDR", b"\x00\x00\x00\x03IHDR")
    with pytest.raises(DataError, match=r"cat/1: not a readable image \(Truncated IHDR chunk\)"):
        open_image(data, "cat/1")


def test_deep_pixels_are_refused_instead_of_clipped(tmp_path):
    root = write_folder(tmp_path / "set", {"a": 1, "b": 1})
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(root / "a" / "deep.png")
    with pytest.raises(DataError, match="convert it to 8 bits per channel"):
        open_data(root)


def test_mixed_sizes_need_a_size_and_the_message_says_how_it_resizes(tmp_path):
    root = write_folder(tmp_path / "set", {"a": 2, "b": 2})
    picture(5, size=(12, 8)).save(root / "b" / "1.png")
    with pytest.raises(DataError, match=r"b/1.png: 12 x 8 pixels, .* have 8 x 8.*--size N .*bilinear.*central square"):
        open_data(root)
    assert open_data(root, size=6).train.spec.image_shape == (3, 6, 6)


@pytest.mark.parametrize("layout", ["empty", "flat", "hollow"])
def test_folders_without_images_are_refused(tmp_path, layout):
    root = tmp_path / "set"
    root.mkdir()
    expected = "no class folders.*cat/1.png"
    if layout == "flat":
        picture(1).save(root / "1.png")
    if layout == "hollow":
        write_folder(root, {"a": 1, "b": 0})
        expected = "b: no images"
    with pytest.raises(DataError, match=expected):
        open_data(root)


def test_one_class_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"only 1 class \(cat\).*at least two"):
        open_data(write_folder(tmp_path / "set", {"cat": 3}))


def test_a_test_class_that_was_not_trained_is_refused(tmp_path):
    write_folder(tmp_path / "set" / "train", {"a": 1, "b": 1})
    write_folder(tmp_path / "set" / "test", {"a": 1, "c": 1})
    with pytest.raises(DataError, match=r"class 'c' is not among the training classes \(a, b\)"):
        open_data(tmp_path / "set")


def test_resizing_keeps_the_aspect_ratio_and_the_centre():
    wide = np.zeros((10, 30), dtype=np.uint8)
    wide[:, 10:20] = 200
    out = np.array(fit(Image.fromarray(wide), 5))
    assert out.shape == (5, 5)
    assert (out[:, 1:4] == 200).all()
    fine = np.tile(np.array([0, 255], dtype=np.uint8), (16, 8))
    assert np.ptp(np.array(fit(Image.fromarray(fine), 4))[:, 1:3]) < 40  # antialiased: stripes become grey
    batch = torch.randint(0, 256, (2, 3, 9, 7)).to(torch.uint8)
    assert resize(batch, None) is batch
    one = Image.fromarray(batch[1].permute(1, 2, 0).numpy())
    assert torch.equal(resize(batch, 4)[1], torch.from_numpy(np.array(fit(one, 4))).permute(2, 0, 1))
