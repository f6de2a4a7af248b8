"""Decoders by name, folder or data; pixels, tiles and what they refuse; the portable pipeline in process."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import SPEC, tiny_bank, tiny_decoder, tiny_formation

from latentdc import resources
from latentdc.decoders.components import WEIGHTS
from latentdc.decoders.reference import default_decoder, fits, load_decoder, resolve_decoder, seal
from latentdc.errors import BundleError, InputError
from latentdc.portable.pipeline import DatasetSynthesisBundle
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.seeding import stream

CARD = {
    "kind": "gan",
    "data": "tiny",
    "image_shape": [1, 8, 8],
    "num_classes": 3,
    "class_names": list(SPEC.class_names),
    "also_fits": ["tiny-mini"],
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of shipped resources that holds the checkpoint ``tiny-gan``."""
    folder = tmp_path / "checkpoints" / "tiny-gan"
    tiny_decoder("gan").save_pretrained(folder)
    (folder / "README.md").write_text("A tiny generator.\n")
    seal(folder, CARD)
    monkeypatch.setattr(resources, "_ROOTS", (tmp_path,))
    return folder


def test_loads_by_name_and_by_folder(shop: Path) -> None:
    owner = torch.tensor([0, 2])
    z = tiny_decoder("gan").prior(owner, stream(0, "z"))
    for reference in ("tiny-gan", shop, str(shop)):
        decoder = load_decoder(reference)
        assert torch.equal(decoder(z, owner), tiny_decoder("gan")(z, owner))
        assert not any(parameter.requires_grad for parameter in decoder.parameters())
        assert not any(module.training for module in decoder.modules())


def test_seal_covers_every_file(shop: Path) -> None:
    sums = json.loads((shop / "card.json").read_text())["sha256"]
    assert sums.keys() == {"config.json", WEIGHTS, "README.md"}


@pytest.mark.parametrize("listed", [5, ["config.json"], {"config.json": 5}])
def test_a_list_of_files_that_is_none_is_refused(shop: Path, listed: object) -> None:
    (shop / "card.json").write_text(json.dumps({"sha256": listed}))
    with pytest.raises(BundleError, match="a sha256 for each file name is needed"):
        load_decoder(shop)


@pytest.mark.parametrize(("data", "found"), [("tiny", True), ("tiny-mini", True), ("other", False)])
def test_default_decoder_matches_data(shop: Path, data: str, found: bool) -> None:
    spec = dataclasses.replace(SPEC, name=data)
    assert default_decoder(spec) == (shop if found else None)
    if found:
        assert resolve_decoder(None, spec).image_shape == SPEC.image_shape
    assert default_decoder(dataclasses.replace(spec, image_shape=(1, 16, 16))) is None
    assert default_decoder(dataclasses.replace(spec, class_names=("a", "b"))) is None
    assert not fits({}, spec)


def test_classes_in_another_order_are_other_classes(shop: Path) -> None:
    shuffled = dataclasses.replace(SPEC, class_names=SPEC.class_names[::-1])
    assert default_decoder(shuffled) is None
    with pytest.raises(InputError, match=r"in another order: boot, coat, bag; the data has bag, coat, boot.*--classes"):
        resolve_decoder("tiny-gan", shuffled)


def test_nothing_fits(shop: Path) -> None:
    spec = dataclasses.replace(SPEC, name="cats")
    with pytest.raises(InputError) as caught:
        resolve_decoder(None, spec)
    for part in ('"cats"', "1 x 8 x 8", "3 classes", "tiny-gan", "--decoder pixels", "latentdc fit gan"):
        assert part in str(caught.value)


def test_given_decoder_must_fit(shop: Path) -> None:
    with pytest.raises(InputError, match=r"makes images 1 x 8 x 8 of 3 classes.*1 x 16 x 16.*--decoder pixels"):
        resolve_decoder("tiny-gan", dataclasses.replace(SPEC, image_shape=(1, 16, 16)))
    with pytest.raises(InputError, match=r"of 3 classes, the data \"tiny\" has 1 x 8 x 8 and 2"):
        resolve_decoder(shop, dataclasses.replace(SPEC, class_names=("a", "b")))


def test_pixels_fit_any_data() -> None:
    decoder = resolve_decoder("pixels", dataclasses.replace(SPEC, name="cats"))
    assert isinstance(decoder, PixelsDecoder)
    assert decoder({"x": torch.zeros(1, 1, 8, 8)}, torch.tensor([0])).unique().tolist() == pytest.approx([0.4])


def test_unknown_names_are_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'"tiny-gen": no such decoder. Did you mean "tiny-gan"\?.*latentdc fit gan'):
        load_decoder("tiny-gen")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no config.json"):
        load_decoder(tmp_path / "empty")
    config = json.loads((shop / "config.json").read_text())
    (shop / "config.json").write_text(json.dumps({**config, "_class_name": "GenDecoder"}))
    seal(shop, CARD)
    with pytest.raises(InputError, match=r'"GenDecoder": no such decoder class. Did you mean "GanDecoder"'):
        load_decoder(shop)


def test_damaged_checkpoints_are_refused(shop: Path) -> None:
    state = load_file(shop / WEIGHTS)
    del state["embed.weight"]
    save_file(state, shop / WEIGHTS, {"format": "pt"})
    with pytest.raises(BundleError, match=f"{WEIGHTS} is damaged or was edited"):
        load_decoder(shop)
    seal(shop, CARD)
    with pytest.raises(BundleError, match=r"missing weights for GanDecoder: embed.weight"):
        load_decoder(shop)
    (shop / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=f"{WEIGHTS} is missing"):
        load_decoder(shop)


@pytest.mark.parametrize("wrong", [([1, 8], [0.4], [0.3]), ([1, 8, 8], [0.4, 0.4], [0.3]), ([1, 8, 8], [0.4], [0.0])])
def test_pixels_refuse(wrong: tuple[list[float], ...]) -> None:
    with pytest.raises(ValueError, match=r"give \(c, h, w\), c means and c positive deviations"):
        PixelsDecoder(*wrong)


def test_tiles_by_hand() -> None:
    x = torch.arange(2 * 16.0).reshape(2, 1, 4, 4)
    out = TilesFormation(2)(x)
    assert out.shape == (8, 1, 4, 4)
    for i, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        tile = x[1:2, :, row : row + 2, column : column + 2]
        wanted = torch.nn.functional.interpolate(tile, scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(out[4 + i : 5 + i], wanted)
    assert torch.equal(TilesFormation(1)(x), x)


def test_tiles_pack_is_where_tiles_start() -> None:
    flat = torch.rand(8, 3, 1, 1).expand(8, 3, 6, 6)
    packed = TilesFormation(2).pack(flat)
    assert packed.shape == (2, 3, 6, 6)
    torch.testing.assert_close(TilesFormation(2)(packed), flat)
    with pytest.raises(ValueError, match="7 images cannot be packed by 4"):
        TilesFormation(2).pack(flat[:7])


def test_tiles_refuse() -> None:
    with pytest.raises(ValueError, match=r"factor = 3 does not divide images of 28 x 28: .*1, 2, 4, 7, 14, 28"):
        TilesFormation(3)(torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match="factor = 0: give 1 or more"):
        TilesFormation(0)


@pytest.fixture
def pipe() -> DatasetSynthesisBundle:
    decoder = tiny_decoder("pixels")
    return DatasetSynthesisBundle(
        decoder, tiny_bank(decoder, [3, 1, 2]), tiny_formation("tiles"), class_names=list(SPEC.class_names)
    )


def test_pipeline_takes_prefixes_by_image(pipe: DatasetSynthesisBundle) -> None:
    assert pipe.max_images_per_class == (12, 4, 8)
    every = pipe(output_type="pt")
    some = pipe(images_per_class=6, classes=["bag", "boot"], batch_size=1, output_type="pt")
    assert some.labels.tolist() == [2] * 6 + [0] * 6
    assert torch.equal(some.images, torch.cat([every.images[16:22], every.images[:6]]))
    assert torch.equal(every.images, pipe(batch_size=2, output_type="pt").images)
    assert (every.images.min() >= 0, every.images.max() <= 1) == (True, True)


def test_pipeline_output_types(pipe: DatasetSynthesisBundle) -> None:
    images, labels, weights = pipe(images_per_class=1, output_type="np", return_dict=False)
    assert (images.shape, labels.tolist(), weights) == ((3, 8, 8, 1), [0, 1, 2], None)
    assert pipe(output_type="latent").images["x"].shape == (6, 1, 8, 8)
    assert len(pipe(output_type="latent").labels) == 6
    assert [image.size for image in pipe(images_per_class=1).images] == [(8, 8)] * 3


def test_pipeline_refuses(pipe: DatasetSynthesisBundle) -> None:
    with pytest.raises(ValueError, match="images_per_class = 5: this bundle stores at most 4"):
        pipe(images_per_class=5)
    assert len(pipe(images_per_class=5, classes=[0, 2], output_type="pt").images) == 10
    with pytest.raises(ValueError, match="'hat' is not a class of this bundle; known: boot, coat, bag"):
        pipe(classes=["hat"])
    with pytest.raises(ValueError, match="output_type is one of pil, pt, np, latent"):
        pipe(output_type="jpg")


def test_pipeline_in_half_precision_keeps_the_latents(pipe: DatasetSynthesisBundle) -> None:
    exact = pipe(output_type="pt").images
    pipe.decoder.to(torch.bfloat16)
    pipe.formation.to(torch.bfloat16)
    rough = pipe(output_type="pt").images
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.02
