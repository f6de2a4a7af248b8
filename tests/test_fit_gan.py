"""Fitting a generator: reproducible, resumable, honest about what it wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentdc.data.store import ClassStore
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, DivergenceError, InputError, RecipeError
from latentdc.fit import FITS, GanRecipe, fit_gan
from latentdc.fit.gan import GanGame, Losses
from latentdc.fit.state import load_state
from latentdc.seeding import stream

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = GanRecipe(z_dim=4, channels=(8, 4), critic_channels=(8, 8), batch_size=8, embed_dim=4)
STEPS = 12


@pytest.fixture(scope="module")
def store(make_store: Callable[..., ClassStore]) -> ClassStore:
    return make_store(20)


@pytest.fixture(scope="module")
def straight(store: ClassStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "tiny-gan"
    return fit_gan(store, TINY, out=out, steps=STEPS, progress=False, figures=False, also_fits=["tiny-too"])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = GanGame.step

    def stops(self: GanGame, number: int, progress: float) -> Losses:
        if number == step:
            raise KeyboardInterrupt
        return whole(self, number, progress)

    monkeypatch.setattr(GanGame, "step", stops)


def test_resume_equals_straight(
    store: ClassStore, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny-gan"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            fit_gan(store, TINY, out=out, steps=STEPS, progress=False, figures=False)
    part = json.loads((out / "card.json").read_text())
    assert (part["steps"], part["complete"]) == (5, False)
    assert load_decoder(out).latent_shapes == {"z": (4,)}
    fit_gan(store, TINY, out=out, steps=STEPS, progress=False, figures=False, resume=True)
    assert (out / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()
    assert (out / "samples.png").read_bytes() == (straight / "samples.png").read_bytes()
    ours, theirs = (load_state(path.with_name("tiny-gan.training") / "state.safetensors") for path in (out, straight))
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())
    assert ours[1]["step"] == theirs[1]["step"] == STEPS


def test_seed_decides(store: ClassStore, straight: Path, tmp_path: Path) -> None:
    other = fit_gan(store, TINY, out=tmp_path / "g", steps=STEPS, seed=1, progress=False, figures=False)
    assert (other / WEIGHTS).read_bytes() != (straight / WEIGHTS).read_bytes()


def test_card_tells_the_truth(store: ClassStore, straight: Path) -> None:
    card = json.loads((straight / "card.json").read_text())
    assert (card["kind"], card["data"], card["image_shape"], card["num_classes"]) == ("gan", "tiny", [1, 8, 8], 3)
    assert card["fingerprint"] == store.spec.fingerprint
    assert card["train_images"] == 54
    assert card["also_fits"] == ["tiny-too"]
    assert (card["steps"], card["complete"], card["seed"], card["figures"]) == (STEPS, True, 0, None)
    assert card["recipe"]["z_dim"] == 4
    assert card["machine"]["threads"] == torch.get_num_threads()
    files = {path.name for path in straight.iterdir()}
    assert files == {*card["sha256"], "card.json"}
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((straight / name).read_bytes()).hexdigest() == digest


def test_grid_has_one_row_a_class(straight: Path) -> None:
    with Image.open(straight / "samples.png") as grid:
        assert grid.size == (12 * 8, 3 * 8)


def test_loads_through_the_decoder_table(straight: Path) -> None:
    decoder = load_decoder(straight)
    owner = torch.tensor([0, 1, 2])
    z = decoder.prior(owner, stream(0, "t"))
    assert torch.equal(decoder(z, owner), decoder(z, owner))


def test_figures_are_measured(store: ClassStore, tmp_path: Path) -> None:
    out = fit_gan(store, TINY, out=tmp_path / "g", steps=2, progress=False)
    figures = json.loads((out / "card.json").read_text())["figures"]
    assert 0 <= figures["coverage"] <= 1
    assert figures["density"] >= 0
    assert 0 <= figures["sample_classifier_on_held_out"] <= 100
    assert f"| coverage | {figures['coverage']} |" in (out / "README.md").read_text()


def test_divergence_is_reported(store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GanGame, "step", lambda self, number, progress: Losses(float("nan"), 0.0, 0.0))
    with pytest.raises(DivergenceError, match="step 0"):
        fit_gan(store, TINY, out=tmp_path / "g", steps=3, progress=False)


def test_by_the_clock(store: ClassStore, tmp_path: Path) -> None:
    out = fit_gan(
        store, TINY, out=tmp_path / "g", minutes=0.005, checkpoint_seconds=0.05, precision="bf16", progress=False,
        figures=False,
    )  # fmt: skip
    card = json.loads((out / "card.json").read_text())
    assert card["seconds"] >= 0.3
    assert card["precision"] == "bf16"
    assert list(out.with_name("g.training").glob("samples-*.png"))


def test_another_run_is_not_resumed(store: ClassStore, tmp_path: Path) -> None:
    fit_gan(store, TINY, out=tmp_path / "g", steps=1, progress=False, figures=False)
    with pytest.raises(BundleError, match="another recipe"):
        fit_gan(store, TINY, out=tmp_path / "g", steps=2, seed=3, resume=True, progress=False)


def test_damaged_checkpoint_is_refused(store: ClassStore, tmp_path: Path) -> None:
    state = tmp_path / "g.training" / "state.safetensors"
    state.parent.mkdir()
    state.write_bytes(b"not safetensors")
    with pytest.raises(BundleError, match="not a readable checkpoint"):
        fit_gan(store, TINY, out=tmp_path / "g", steps=2, resume=True, progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None}, "exactly one"),
        ({"minutes": 1.0}, "exactly one"),
        ({"steps": 0}, "exactly one"),
        ({"precision": "fp8"}, "fp8"),
    ],
)
def test_refuses(store: ClassStore, tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit_gan(store, TINY, out=tmp_path / "g", **({"steps": 2, "progress": False} | change))


@pytest.mark.parametrize(
    "change",
    [{"z_dim": 0}, {"batch_size": 1}, {"generator_rate": 0.0}, {"holdout": 0.0}, {"constant": 1.0}, {"kl": -1.0}],
)
def test_recipe_refuses(change: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(change)).split("_")[-1]):
        GanRecipe(**change)


def test_table_resolves() -> None:
    module, _, name = FITS["gan"].partition(":")
    assert (module, name) == (fit_gan.__module__, fit_gan.__name__)
