"""Fitting a generator: reproducible, resumable, honest about what it wrote."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentdc.atomic import read_tensors
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, DivergenceError, InputError, RecipeError
from latentdc.fit import GanRecipe, fit
from latentdc.fit.gan import GanGame, Losses
from latentdc.seeding import stream

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = GanRecipe(z_dim=4, channels=(8, 4), critic_channels=(8, 8), batch_size=8, embed_dim=4)
STEPS = 12


@pytest.fixture(scope="module")
def store(make_store: Callable[..., ClassStore]) -> ClassStore:
    return make_store(20)


@pytest.fixture(autouse=True)
def keyboard() -> Iterator[None]:
    """Ctrl-C raises here even where the tests were started in the background, which inherits SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def straight(store: ClassStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "tiny-gan"
    return fit(store, TINY, out=out, steps=STEPS, progress=False, figures=False, also_fits=["tiny-too"])


def state(out: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return read_tensors(out.with_name(f"{out.name}.training") / f"checkpoint-{step:010d}.safetensors")[0]


def interrupt_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = GanGame.step

    def stops(self: GanGame, number: int, progress: float) -> Losses:
        if number == step:
            raise KeyboardInterrupt
        return whole(self, number, progress)

    monkeypatch.setattr(GanGame, "step", stops)


def interrupt_within(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C once the critic of a step is updated and the generator is not."""
    whole, updates = GanGame._critic_step, iter(range(step + 1))

    def stops(self: GanGame, *batch: torch.Tensor) -> torch.Tensor:
        loss = whole(self, *batch)
        if next(updates) == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(GanGame, "_critic_step", stops)


@pytest.mark.parametrize("interrupt", [interrupt_before, interrupt_within])
def test_resume_equals_straight(
    store: ClassStore,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[[pytest.MonkeyPatch, int], None],
) -> None:
    out = tmp_path / "tiny-gan"
    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            fit(store, TINY, out=out, steps=STEPS, progress=False, figures=False)
    part = json.loads((out / "card.json").read_text())
    assert (part["steps"], part["complete"]) == (5, False)
    assert load_decoder(out).latent_shapes == {"z": (4,)}
    fit(store, TINY, out=out, steps=STEPS, progress=False, figures=False, resume=True)
    assert (out / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()
    assert (out / "samples.png").read_bytes() == (straight / "samples.png").read_bytes()
    ours, theirs = state(out), state(straight)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_fresh_run_clears_the_earlier_one_away(store: ClassStore, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny-gan"
    fit(store, TINY, out=out, steps=STEPS + 3, progress=False, figures=False)
    fit(store, TINY, out=out, steps=STEPS, progress=False, figures=False, also_fits=["tiny-too"])
    assert [path.name for path in out.with_name("tiny-gan.training").glob("checkpoint-*")] == [
        f"checkpoint-{STEPS:010d}.safetensors"
    ]
    assert (out / WEIGHTS).read_bytes() == (straight / WEIGHTS).read_bytes()


def test_seed_decides(store: ClassStore, straight: Path, tmp_path: Path) -> None:
    other = fit(store, TINY, out=tmp_path / "g", steps=STEPS, seed=1, progress=False, figures=False)
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
        cell = 8 * 7 + 2  # images of 8 pixels are shown seven times as large
        assert grid.height == 3 * cell + 2
        assert 12 * cell + 2 < grid.width < 14 * cell


def test_loads_through_the_decoder_table(straight: Path) -> None:
    decoder = load_decoder(straight)
    owner = torch.tensor([0, 1, 2])
    z = decoder.prior(owner, stream(0, "t"))
    assert torch.equal(decoder(z, owner), decoder(z, owner))


def test_figures_are_measured(store: ClassStore, tmp_path: Path) -> None:
    out = fit(store, TINY, out=tmp_path / "g", steps=2, progress=False)
    figures = json.loads((out / "card.json").read_text())["figures"]
    assert 0 <= figures["coverage"] <= 1
    assert figures["density"] >= 0
    assert 0 <= figures["sample_classifier_on_held_out"] <= 100
    assert f"| coverage | {figures['coverage']} |" in (out / "README.md").read_text()


def test_hardly_any_held_out_images_make_rough_figures(
    make_store: Callable[..., ClassStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = fit(make_store(4), TINY, out=tmp_path / "g", steps=1, progress=False)
    figures = json.loads((out / "card.json").read_text())["figures"]
    assert figures["neighbours"] == 2, "one of each of three classes is held out"
    assert 0 <= figures["coverage"] <= 1
    assert "only 3 images are held out" in caplog.text


def test_figures_that_fail_cost_no_training(store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("latentdc.fit.run.measure", fails)
    with pytest.raises(KeyboardInterrupt):
        fit(store, TINY, out=tmp_path / "g", steps=1, progress=False)
    assert json.loads((tmp_path / "g" / "card.json").read_text())["complete"]
    assert load_decoder(tmp_path / "g").latent_shapes == {"z": (4,)}


def test_divergence_is_reported(store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GanGame, "step", lambda self, number, progress: Losses(float("nan"), 0.0, 0.0))
    with pytest.raises(DivergenceError, match="step 0"):
        fit(store, TINY, out=tmp_path / "g", steps=3, progress=False)


def test_by_the_clock(store: ClassStore, tmp_path: Path) -> None:
    out = fit(
        store, TINY, out=tmp_path / "g", minutes=0.005, checkpoint_seconds=0.05, precision="bf16", progress=False,
        figures=False,
    )  # fmt: skip
    card = json.loads((out / "card.json").read_text())
    assert card["seconds"] >= 0.3
    assert card["precision"] == "bf16"
    assert list(out.with_name("g.training").glob("samples-*.png"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, "seed is 3, was 0"),
        ({"steps": 2}, "steps is 2, was 1"),
        ({"steps": None, "minutes": 0.5}, "minutes is 0.5, was None; steps is None, was 1"),
        ({"recipe": dataclasses.replace(TINY, constant=0.25)}, "recipe.constant is 0.25, was 0.5"),
    ],
)
def test_another_run_is_not_resumed(store: ClassStore, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    settings: dict[str, Any] = {"recipe": TINY, "out": tmp_path / "g", "steps": 1, "progress": False, "figures": False}
    fit(store, **settings)
    with pytest.raises(InputError, match=f"another run: {said}"):
        fit(store, **settings | change, resume=True)


def test_damaged_checkpoint_is_refused(store: ClassStore, tmp_path: Path) -> None:
    path = tmp_path / "g.training" / "checkpoint-0000000001.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"not safetensors")
    with pytest.raises(BundleError, match="no intact checkpoint"):
        fit(store, TINY, out=tmp_path / "g", steps=2, resume=True, progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None}, "exactly one"),
        ({"minutes": 1.0}, "exactly one"),
        ({"steps": 0}, "exactly one"),
        *(
            ({"steps": None, "minutes": minutes}, "exactly one of them, a finite number above 0")
            for minutes in (float("nan"), float("inf"), 0.0, -1.0)
        ),
        ({"precision": "fp8"}, "fp8"),
        ({"also_fits": "tiny"}, "list of names"),
    ],
)
def test_refuses(store: ClassStore, tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit(store, TINY, out=tmp_path / "g", **({"steps": 2, "progress": False} | change))


@pytest.mark.parametrize("card", [None, "no JSON", '{"kind": "teapot"}'])
def test_what_is_no_generator_is_left_alone(store: ClassStore, tmp_path: Path, card: str | None) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter-1.tex").write_text("years of work")
    if card is not None:
        (out / "card.json").write_text(card)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"thesis: exists and holds no decoder.*\(--out\)"):
        fit(store, TINY, out=out, steps=1, progress=False, figures=False)
    with pytest.raises(InputError, match="is a file; give a folder"):
        fit(store, TINY, out=out / "chapter-1.tex", steps=1, progress=False, figures=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_came_in_the_way_during_training_is_left_alone(
    store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "g", GanGame.step

    def step(self: GanGame, number: int, progress: float) -> Losses:
        out.mkdir(exist_ok=True)
        (out / "notes.txt").write_text("mine")
        return whole(self, number, progress)

    monkeypatch.setattr(GanGame, "step", step)
    with pytest.raises(InputError, match="holds no decoder"):
        fit(store, TINY, out=out, steps=1, progress=False, figures=False)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    monkeypatch.undo()
    assert (fit(store, TINY, out=out, steps=1, progress=False, figures=False) / WEIGHTS).is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"z_dim": 0},
        {"batch_size": 1},
        {"generator_rate": 0.0},
        {"holdout": 0.0},
        {"constant": 1.0},
        {"kl": -1.0},
        {"channels": (8, 0)},
    ],
)
def test_recipe_refuses(change: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(change)).split("_")[-1]):
        GanRecipe(**change)


@pytest.mark.parametrize(
    ("size", "change", "said"),
    [
        (30, {"channels": (8, 4, 4)}, r"divisible by 4.*30 x 30.*at most 2 levels \(--channels\).*28 or 32.*--size"),
        (15, {"channels": (8, 4)}, r"divisible by 2.*at most 1 levels.*14 or 16"),
        (4, {"channels": (8,), "critic_channels": (8, 8, 8)}, "critic_channels.*at least 8 pixels"),
    ],
)
def test_sizes_the_generator_cannot_make_are_refused(
    make_store: Callable[..., ClassStore], tmp_path: Path, size: int, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        fit(make_store(size=size), dataclasses.replace(TINY, **change), out=tmp_path / "g", steps=1, progress=False)
    assert not list(tmp_path.iterdir())
