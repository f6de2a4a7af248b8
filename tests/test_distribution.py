"""Distribution bundles: statistics are stored, any number of images is drawn from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_parts import tiny_decoder, tiny_formation

from latentdc.bundle import load_bundle, requantise, save_bundle
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.evaluate.baselines import undistilled
from latentdc.initialise import fit_distribution
from latentdc.latents import decode
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline
from latentdc.portable.distribution import DistributionBank, noise_of
from latentdc.portable.pixels import PixelsDecoder


def pixels(store: ClassStore) -> PixelsDecoder:
    return PixelsDecoder(list(store.spec.image_shape), list(store.spec.mean), list(store.spec.std)).eval()


@pytest.fixture
def folder(tiny_store: ClassStore, tmp_path: Path) -> Path:
    decoder = pixels(tiny_store)
    bank = fit_distribution(decoder, tiny_store, 3, tries=5)
    return save_bundle(tmp_path / "set", bank=bank, decoder=decoder, spec=tiny_store.spec, provenance={"seed": 0})


def small(**given: object) -> DistributionBank:
    mean = {"z": torch.arange(6.0).reshape(3, 2)}
    return DistributionBank.of(mean, {"z": torch.ones(3, 2)}, [2, 1, 3], **{"storage": "fp32", **given})


def test_rows_are_draws_that_only_seed_class_and_place_decide() -> None:
    bank = small(seeds=[5, 6, 7])
    assert bank.rows().tolist() == [0, 3, 1, 2, 5, 8]
    assert bank.owner[bank.rows()].tolist() == [0, 0, 1, 2, 2, 2]
    assert bank.y[bank.rows([2], 1)].tolist() == [[0.0, 0.0, 1.0]]
    whole = bank.latents()["z"]
    torch.testing.assert_close(whole[5], torch.tensor([4.0, 5.0]) + noise_of(7, 2, 2, 2))
    for rows in ([8], [5, 0], [8, 0, 5]):
        part = bank.latents(torch.tensor(rows))["z"]
        assert torch.equal(part, whole[[bank.rows().tolist().index(row) for row in rows]])
    assert torch.equal(bank.latents(bank.rows([1], 40))["z"][0], whole[2])
    assert not torch.equal(small(seeds=[5, 6, 8]).latents()["z"][3:], whole[3:])
    assert bank.latents(torch.zeros(0, dtype=torch.int64))["z"].shape == (0, 2)


def test_many_draws_have_the_mean_and_deviation_of_the_class(tiny_store: ClassStore) -> None:
    bank = fit_distribution(pixels(tiny_store), tiny_store, 2, tries=1, storage="fp32")
    drawn = bank.latents(bank.rows([1], 3000))["x"]
    real = pixels(tiny_store).encode(tiny_store.of_class(1).float() / 255)["x"]
    torch.testing.assert_close(bank.mean.x[1], real.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bank.std.x[1], real.std(0, unbiased=False), rtol=1e-5, atol=1e-5)
    assert float((drawn.mean(0) - real.mean(0)).abs().max()) < 5 * float(real.std(0).max()) / 3000**0.5
    torch.testing.assert_close(drawn.std(0), real.std(0, unbiased=False), rtol=0.1, atol=0)


def test_of_several_seeds_the_best_fitting_is_kept(tiny_store: ClassStore) -> None:
    def misfit(tries: int) -> float:
        bank = fit_distribution(pixels(tiny_store), tiny_store, 4, tries=tries)
        noise = torch.stack([noise_of(bank.seeds[0], 0, place, 64) for place in range(4)])
        return float((noise.mean(0).abs() + (noise.std(0, unbiased=False) - 1).abs()).mean())

    assert misfit(40) < misfit(1)
    again = [fit_distribution(pixels(tiny_store), tiny_store, 4, tries=5).seeds for _ in range(2)]
    assert again[0] == again[1]


def test_the_bundle_gives_any_number_of_images(folder: Path) -> None:
    pipe = DatasetSynthesisPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    assert len(pipe(output_type="pt").images) == 9
    few, many = pipe(2, output_type="pt"), pipe(50, output_type="pt")
    assert len(many.images) == 150
    assert many.labels.tolist() == [c for c in range(3) for _ in range(50)]
    torch.testing.assert_close(many.images[50:52], few.images[2:4])
    batches = list(pipe.iter_batches(7, images_per_class=5, classes=[1]))
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), many.images[50:55])
    bundle = load_bundle(folder)
    torch.testing.assert_close(decode(bundle.decoder, bundle.bank).x.clamp(0, 1), pipe(output_type="pt").images)
    assert undistilled(bundle, 0).counts == (3, 3, 3)
    with pytest.raises(InputError, match="images_per_class = 0: give 1 or more, or nothing for 3"):
        pipe(0)


def test_bytes_do_not_grow_with_the_images(folder: Path, tmp_path: Path) -> None:
    bundle = load_bundle(folder)
    storage = bundle.storage
    assert (storage.latents, storage.scales, storage.labels) == (3 * 2 * 64 * 2, 0, 3 * 8)
    assert storage.bytes_per_class == 2 * 64 * 2 + 8
    assert storage.total == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    card = (folder / "README.md").read_text()
    assert (
        "Per class the mean and deviation of latents (fp16), from which any number of images is drawn, 9 where" in card
    )
    wide = requantise(folder, tmp_path / "wide", "fp32")
    assert load_bundle(wide).storage.latents == 2 * storage.latents
    with pytest.raises(InputError, match=r'storage = "int8": known for a distribution are fp16, fp32'):
        requantise(folder, tmp_path / "no", "int8")


def test_a_formation_makes_several_images_of_each_draw(tiny_store: ClassStore, tmp_path: Path) -> None:
    decoder = pixels(tiny_store)
    bank = fit_distribution(decoder, tiny_store, 1, tries=1)
    place = save_bundle(
        tmp_path / "t", bank=bank, decoder=decoder, formation=tiny_formation("tiles"), spec=tiny_store.spec,
        provenance={},
    )  # fmt: skip
    pipe = DatasetSynthesisPipeline.from_pretrained(place)
    assert len(pipe(6, output_type="pt").images) == 18


READER = """
import sys, diffusers, torch
pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
torch.save(pipe(5, output_type="pt").images, sys.argv[2])
"""


def test_it_draws_the_same_without_latentdc(folder: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-I", "-c", READER, str(folder), str(tmp_path / "out.pt")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = DatasetSynthesisPipeline.from_pretrained(folder)(5, output_type="pt").images
    assert torch.equal(torch.load(tmp_path / "out.pt", weights_only=True), ours)


def test_refusals(tiny_store: ClassStore) -> None:
    decoder = pixels(tiny_store)
    with pytest.raises(InputError, match='"statistics" encodes real images and GanDecoder has no encoder'):
        fit_distribution(tiny_decoder("gan"), tiny_store, 1)
    with pytest.raises(InputError, match="images_per_class = 0, tries = 1: give at least 1"):
        fit_distribution(decoder, tiny_store, 0, tries=1)
    with pytest.raises(InputError, match='storage = "int8": a distribution is stored as fp16 or fp32'):
        fit_distribution(decoder, tiny_store, 1, storage="int8")
    with pytest.raises(InputError, match='class "class-0" has 1 images: a deviation needs at least 2'):
        fit_distribution(decoder, tiny_store.limit(1), 1)
    with pytest.raises(ValueError, match="z: a statistic is too large for fp16; store it as"):
        DistributionBank.of({"z": torch.full((1, 1), 1e6)}, {"z": torch.ones(1, 1)}, [1])
    with pytest.raises(ValueError, match="z: give one mean and one deviation of 0 or more"):
        DistributionBank.of({"z": torch.zeros(1, 1)}, {"z": -torch.ones(1, 1)}, [1])
    with pytest.raises(ValueError, match="2 seeds for 1 classes"):
        DistributionBank({"z": [1]}, [1], [1, 2])
    with pytest.raises(ValueError, match="counts of 1 or more"):
        DistributionBank({"z": [1]}, [0])
    with pytest.raises(ValueError, match='"int8": known for a distribution'):
        DistributionBank({"z": [1]}, [1], storage="int8")
    with pytest.raises(ValueError, match=r"classes lie in \[0, 3\), limit > 0"):
        small().rows([3])
