"""Fitting autoencoders and diffusion models: what holds for every kind of decoder, and what each one learns."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted import QUIET, WEIGHTS, resume_equals_straight
from PIL import Image

from latentdc import CondensationPipeline
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, InputError, RecipeError
from latentdc.fit import AutoencoderRecipe, DiffusionRecipe, GanRecipe, fit
from latentdc.fit.training import FitRecipe, Training, falling, follow
from latentdc.passing import reconstructions
from latentdc.seeding import stream

RECIPES: dict[str, FitRecipe] = {
    "gan": GanRecipe(z_dim=4, channels=(8, 4), critic_channels=(8, 8), batch_size=8, embed_dim=4),
    "autoencoder": AutoencoderRecipe(channels=(8, 8), batch_size=8),
    "diffusion": DiffusionRecipe(channels=(8, 16), layers=1, num_steps=3, batch_size=8),
}


@pytest.fixture(scope="module")
def store(make_store: Callable[..., ClassStore]) -> ClassStore:
    return make_store(20)


@pytest.fixture(scope="module")
def vae(store: ClassStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = AutoencoderRecipe(channels=(8, 8), batch_size=8, latent_channels=2, rate=1e-2, average=0.9)
    return fit(store, recipe, out=tmp_path_factory.mktemp("vae") / "tiny-vae", steps=150, **QUIET)


def training(recipe: FitRecipe, store: ClassStore) -> Training:
    return recipe.training(store, seed=0, device=torch.device("cpu"), bf16=False)


@pytest.mark.parametrize("kind", RECIPES)
def test_resume_equals_straight(store: ClassStore, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resume_equals_straight(store, RECIPES[kind], tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", RECIPES)
def test_card_and_folder(store: ClassStore, tmp_path: Path, kind: str) -> None:
    out = fit(store, RECIPES[kind], out=tmp_path / "made", steps=2, precision="bf16", progress=False)
    card = json.loads((out / "card.json").read_text())
    assert (card["kind"], card["precision"], card["steps"], card["train_images"]) == (kind, "bf16", 2, 54)
    decoder: Any = load_decoder(out)
    assert {name: list(shape) for name, shape in decoder.latent_shapes.items()} == card["latent_shapes"]
    owner = torch.tensor([0, 1, 2])
    z = decoder.prior(owner, stream(0, "t"))
    assert decoder(z, owner).shape == (3, 1, 8, 8)
    assert torch.equal(decoder(z, owner), decoder(z, owner))
    text = (out / "README.md").read_text()
    for name, value in card["figures"].items():
        assert f"| {name.replace('_', ' ')} | {value} |" in text
    assert ("rmse" in card["figures"]) == (kind == "autoencoder")
    assert ("coverage" in card["figures"]) == (kind != "autoencoder")


@pytest.mark.parametrize("kind", RECIPES)
def test_state_of_another_recipe_is_refused(store: ClassStore, kind: str) -> None:
    wide = {"gan": {"z_dim": 5}, "autoencoder": {"latent_channels": 3}, "diffusion": {"channels": (8, 24)}}
    change: Any = wide[kind]
    tensors = training(dataclasses.replace(RECIPES[kind], **change), store).tensors()  # type: ignore[type-var]
    with pytest.raises(BundleError, match="does not fit this recipe and data"):
        training(RECIPES[kind], store).load(tensors)


def test_autoencoder_learns_the_images(store: ClassStore, vae: Path) -> None:
    decoder: Any = load_decoder(vae)
    error = (reconstructions(decoder, store.images, store.labels).float() - store.images.float()).square().mean().sqrt()
    spread = (store.images.float() - store.images.float().mean(0)).square().mean().sqrt()
    assert error < 0.6 * spread
    z = decoder.encode(store.images.float() / 255)["z"]
    assert z.shape == (60, 2, 4, 4)
    assert float(z.mean()) == pytest.approx(0, abs=0.05)
    assert float(z.std()) == pytest.approx(1, abs=0.05)


def test_autoencoder_picture_is_half_real(store: ClassStore, vae: Path) -> None:
    with Image.open(vae / "samples.png") as grid:
        shown = torch.frombuffer(bytearray(grid.convert("L").tobytes()), dtype=torch.uint8)
        shown = shown.reshape(grid.height, grid.width)
    real = (store.images[0, 0]).repeat_interleave(7, 0).repeat_interleave(7, 1)  # shown seven times as large
    left = min((shown[2 : 2 + 56, x : x + 56].float() - real.float()).abs().max() for x in range(grid.width - 56))
    assert left == 0


def test_autoencoder_loss_is_its_formula(store: ClassStore) -> None:
    recipe = dataclasses.replace(RECIPES["autoencoder"], kl=0.0)  # type: ignore[type-var]
    learner: Any = training(recipe, store)
    rng = stream(0, "autoencoder-step", 0)
    x = 2 * store.batch(torch.randint(60, (8,), generator=rng)).x - 1
    with torch.no_grad():
        posterior = learner.model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng)
        made = learner.model.decode(posterior.mean + posterior.std * noise).sample
    losses = learner.step(0, 0.0)
    assert losses.error == pytest.approx(float((made - x).abs().flatten(1).sum(1).mean()), rel=1e-5)
    assert losses.divergence == pytest.approx(float(posterior.kl().mean()), rel=1e-5)


@pytest.mark.parametrize("told", [{}, {"latents_mean": [-1.0, 3.0], "latents_std": [2.0, 0.5]}])
def test_diffusion_in_latents_carries_its_autoencoder(
    store: ClassStore, vae: Path, tmp_path: Path, told: dict[str, list[float]]
) -> None:
    vae = shutil.copytree(vae, tmp_path / "vae", ignore=shutil.ignore_patterns("card.json"))
    config = json.loads((vae / "config.json").read_text())
    config["model_config"] |= told
    (vae / "config.json").write_text(json.dumps(config))
    recipe = DiffusionRecipe(str(vae), channels=(8,), layers=1, num_steps=3, batch_size=8)
    out = fit(store, recipe, out=tmp_path / "d", steps=2, **QUIET)
    inner: Any = load_decoder(vae)
    decoder: Any = load_decoder(out)
    assert decoder.latent_shapes == {"z": (2, 4, 4)}
    latent = torch.randn(2, 2, 4, 4, generator=stream(0, "t"))
    torch.testing.assert_close(decoder._image(latent), inner({"z": latent}, torch.zeros(2, dtype=torch.int64)))
    assert len(json.loads((out / "card.json").read_text())["autoencoder_sha256"]) == 64


def test_diffusion_learns_its_class(make_store: Callable[..., ClassStore]) -> None:
    store = make_store(30)
    recipe = DiffusionRecipe(channels=(16,), layers=1, num_steps=4, batch_size=32, rate=3e-3, average=0.9)
    learner: Any = training(recipe, store)
    losses = [learner.step(number, 0.0).velocity for number in range(150)]
    assert sum(losses[-20:]) / 20 < 0.4 * sum(losses[:5]) / 5
    decoder = learner.decoder()
    owner = torch.arange(3).repeat_interleave(8)
    with torch.no_grad():
        made = decoder(decoder.prior(owner, stream(0, "t")), owner)
    means = torch.stack([store.of_class(c).float().mean(0) / 255 for c in range(3)])
    nearest = (made[:, None] - means).square().flatten(2).sum(2).argmin(1)
    assert (nearest == owner).float().mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("autoencoder", {"latent_channels": 0}, "latent_channels = 0"),
        ("autoencoder", {"kl": -1.0}, "kl = -1.0"),
        ("autoencoder", {"holdout": 0.0}, "holdout = 0.0"),
        ("diffusion", {"channels": (12,)}, r"multiples of 8 \(--channels\)"),
        ("diffusion", {"num_steps": 0}, "num_steps = 0"),
        ("diffusion", {"drop": 1.0}, "drop = 1.0"),
    ],
)
def test_recipes_refuse(kind: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        dataclasses.replace(RECIPES[kind], **change)  # type: ignore[type-var]


def test_sizes_and_autoencoders_that_do_not_fit_are_refused(
    store: ClassStore, make_store: Callable[..., ClassStore], vae: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"divisible by 2.*15 x 15"):
        training(RECIPES["autoencoder"], make_store(size=15))
    gan = fit(store, RECIPES["gan"], out=tmp_path / "g", steps=1, **QUIET)
    with pytest.raises(InputError, match="is a GanDecoder; give one that `latentdc fit autoencoder`"):
        training(DiffusionRecipe(str(gan)), store)
    with pytest.raises(InputError, match=r'makes images 1 x 8 x 8 .*, the data "tiny" has 1 x 16 x 16'):
        training(DiffusionRecipe(str(vae)), make_store(size=16))
    with pytest.raises(InputError, match=r'"vea": no such decoder.*--autoencoder of fit diffusion'):
        training(DiffusionRecipe("vea"), store)


@pytest.mark.parametrize("kind", ["autoencoder", "diffusion"])
def test_condenses_through_what_was_fitted(store: ClassStore, tmp_path: Path, kind: str) -> None:
    decoder = fit(store, RECIPES[kind], out=tmp_path / kind, steps=2, **QUIET)
    pipe = CondensationPipeline.from_pretrained(decoder)
    pipe.set_progress_bar_config(disable=True)
    tiny = ["source.num_pairs=1", "source.width=4"]
    out = pipe(store, "dm-gan", out=tmp_path / "run", images_per_class=1, steps=2, settings=tiny)
    assert out.bundle.decoder.config["_class_name"].lower() == f"{kind}decoder"


def test_rates_fall_and_averages_follow() -> None:
    assert [falling(p, 0.5) for p in (0.0, 0.5, 0.75, 1.0)] == [1.0, 1.0, 0.5, 0.0]
    net, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(net.weight, 1.0)
    torch.nn.init.constant_(average.weight, 0.0)
    follow(average, net, 0, 0.999)
    assert average.weight.item() == pytest.approx(0.9)
    follow(average, net, 10_000, 0.999)
    assert average.weight.item() == pytest.approx(0.9 + 0.1 * 0.001)


def test_a_decoder_is_not_made_in_the_place_of_what_it_is_made_from(store: ClassStore, vae: Path) -> None:
    before = (vae / WEIGHTS).read_bytes()
    recipe = DiffusionRecipe(str(vae), channels=(8,), layers=1, num_steps=3, batch_size=8)
    with pytest.raises(InputError, match="is the decoder that this one is made from, and would be lost"):
        fit(store, recipe, out=vae, steps=1, **QUIET)
    assert (vae / WEIGHTS).read_bytes() == before


def test_what_lies_beside_a_fitted_decoder_is_kept(store: ClassStore, tmp_path: Path) -> None:
    out = fit(store, RECIPES["gan"], out=tmp_path / "g", steps=1, **QUIET)
    (out / "notes.txt").write_text("mine")
    (out / "runs").mkdir()
    (out / "runs" / "grid.png").write_bytes(b"mine too")
    weights = (out / WEIGHTS).read_bytes()
    fit(store, RECIPES["gan"], out=out, steps=2, **QUIET)
    assert (out / WEIGHTS).read_bytes() != weights
    assert ((out / "notes.txt").read_text(), (out / "runs" / "grid.png").read_bytes()) == ("mine", b"mine too")
    assert set(json.loads((out / "card.json").read_text())["sha256"]).isdisjoint({"notes.txt", "runs"})
    load_decoder(out)
