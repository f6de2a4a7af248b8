"""Tuning a generator: what a step is, that draws come nearer to the real images, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted import QUIET, WEIGHTS, resume_equals_straight

from latentdc.data.store import ClassStore
from latentdc.decoders.reference import load_decoder
from latentdc.discrepancies import Energy
from latentdc.errors import BundleError, InputError, RecipeError
from latentdc.fit import AutoencoderRecipe, GanRecipe, TuneRecipe, fit
from latentdc.fit.tune import Tuning
from latentdc.networks import build
from latentdc.networks.pool import fingerprint
from latentdc.seeding import stream


@pytest.fixture(scope="module")
def store(make_store: Callable[..., ClassStore]) -> ClassStore:
    return make_store(20)


@pytest.fixture(scope="module")
def gan(store: ClassStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = GanRecipe(z_dim=4, channels=(8, 4), critic_channels=(8, 8), batch_size=8, embed_dim=4, mapping=1)
    return fit(store, recipe, out=tmp_path_factory.mktemp("gan") / "tiny-gan", steps=3, **QUIET)


@pytest.fixture
def recipe(gan: Path) -> TuneRecipe:
    return TuneRecipe(str(gan), per_class=4, batch_size=8, epochs=1, width=4)


def tuning(recipe: TuneRecipe, store: ClassStore, *, seed: int = 0) -> Tuning:
    return recipe.training(store, seed=seed, device=torch.device("cpu"), bf16=False)


@pytest.mark.parametrize("number", [4, 5])
def test_a_step_is_the_energy_distance_of_some_classes(store: ClassStore, recipe: TuneRecipe, number: int) -> None:
    learner = tuning(recipe, store)
    rng = stream(0, "tune-step", number)
    classes = torch.randperm(3, generator=rng)[:2].sort().values
    owner = classes.repeat_interleave(4)
    view = learner.sources[number % 2].view(number)
    with torch.no_grad():
        x = learner.generator(learner.generator.prior(owner, rng), owner)
        real = view.batch(classes.tolist())
        ours, theirs = (
            view.net.observe(view.augment(each).x).last
            for each in (real._replace(x=x, owner=owner, y=real.y[:8], w=None), real)
        )
        sure = learner.classifier(x).softmax(1)[torch.arange(8), owner]
    expected = sum(unbiased(ours[owner == c], theirs[real.owner == c]) for c in classes.tolist()) / 2
    found = learner.step(number, 0.0)
    assert found.energy == pytest.approx(expected, rel=1e-4)
    assert found.wrong == pytest.approx(sum(max(0.0, math.log(0.5 / p)) for p in sure.tolist()) / 8, rel=1e-4)
    assert found.wrong > 0


def unbiased(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The energy distance of two samples, pair by pair, relative to the spread of the second."""

    def mean(one: torch.Tensor, other: torch.Tensor, power: int = 1) -> float:
        pairs = [
            float((a - b).norm()) ** power
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if one is not other or i != j
        ]
        return sum(pairs) / len(pairs)

    spread = mean(theirs, theirs, 2) ** 0.5
    return (2 * mean(ours, theirs) - mean(ours, ours) - mean(theirs, theirs)) / spread


def test_networks_are_fresh_and_between_start_and_end_by_turns(store: ClassStore, recipe: TuneRecipe) -> None:
    learner = tuning(recipe, store)
    fresh, between = learner.sources
    assert fingerprint(fresh.view(0).net) != fingerprint(fresh.view(2).net)
    start, end = learner.pool.network(0).state_dict(), learner.pool.trained(0)
    for name, value in between.view(1).net.state_dict().items():
        low, high = torch.minimum(start[name], end[name]), torch.maximum(start[name], end[name])
        assert bool(((value >= low - 1e-6) & (value <= high + 1e-6)).all())


def test_draws_come_nearer_to_the_real_images(store: ClassStore, recipe: TuneRecipe) -> None:
    learner = tuning(
        dataclasses.replace(recipe, per_class=16, batch_size=48, rate=1e-2, average=0.9, hard=0.0, width=16), store
    )
    net = build("mlp", store.spec, seed=9)  # none of those it is tuned by

    @torch.no_grad()
    def distance() -> float:
        owner = store.labels
        made = learner.generator(learner.generator.prior(owner, stream(0, "t")), owner)
        ours, theirs = (net.observe(x).last for x in (made, store.images.float() / 255))
        return float(Energy()(Energy().summarise(theirs, owner, 3), ours, owner))

    before = distance()
    for number in range(100):
        learner.step(number, 0.0)
    assert distance() < 0.7 * before


def test_the_average_is_what_is_kept(store: ClassStore, recipe: TuneRecipe) -> None:
    learner = tuning(dataclasses.replace(recipe, rate=1e-2), store)
    before = fingerprint(learner.generator)
    learner.step(0, 0.0)
    decoder = learner.decoder()
    assert decoder.embed.weight.equal(learner.average.embed.weight)
    assert len({before, fingerprint(decoder), fingerprint(learner.generator)}) == 3
    owner = torch.arange(3)
    mean = decoder.in_space("w").class_mean(owner, stream(0, "gan-means"))["w"]
    assert decoder.mapper is not None
    torch.testing.assert_close(decoder.mapper.get_buffer("means"), mean)


def test_resume_equals_straight(
    store: ClassStore, recipe: TuneRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*given: object, **more: object) -> None:
        raise AssertionError("the checkpoint holds the networks")

    def forbid() -> None:
        monkeypatch.setattr("latentdc.networks.trained.Trainer.train", no_training)

    state = resume_equals_straight(store, recipe, tmp_path, monkeypatch, forbid)
    assert any(name.startswith("pool/0/") for name in state)


def test_networks_train_alike_whatever_the_step_computes_in(store: ClassStore, recipe: TuneRecipe) -> None:
    """Autocast would keep showing them the weights that they began with."""
    alone, within = (recipe.training(store, seed=0, device=torch.device("cpu"), bf16=True) for _ in range(2))
    assert list(alone.prepare()) == ["training network 1 of 1", "looking at the real images"]
    within.step(0, 0.0)
    expected, found = alone.pool.trained(0), within.pool.trained(0)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_generator_is_not_tuned_in_its_own_place(store: ClassStore, recipe: TuneRecipe, gan: Path) -> None:
    before = (gan / WEIGHTS).read_bytes()
    with pytest.raises(InputError, match="is the decoder that this one is made from, and would be lost"):
        fit(store, recipe, out=gan, steps=1, **QUIET)
    assert (gan / WEIGHTS).read_bytes() == before


def test_card_says_what_it_was_tuned_from(store: ClassStore, recipe: TuneRecipe, gan: Path, tmp_path: Path) -> None:
    out = fit(store, recipe, out=tmp_path / "made", steps=2, precision="bf16", progress=False)
    card = json.loads((out / "card.json").read_text())
    assert (card["kind"], card["steps"], card["train_images"]) == ("gan", 2, 54)
    assert card["decoder_sha256"] == fingerprint(load_decoder(gan))
    assert set(card["figures"]) >= {"coverage", "density", "sample_classifier_on_held_out"}
    assert f"Tuned from {gan} on 54 training images in 2 steps" in (out / "README.md").read_text()
    again = TuneRecipe(str(out), per_class=4, batch_size=8, epochs=1, width=4)
    assert tuning(again, store).came_as == fingerprint(load_decoder(out))


def test_a_checkpoint_of_another_generator_is_refused(
    store: ClassStore, recipe: TuneRecipe, gan: Path, tmp_path: Path
) -> None:
    out = fit(store, recipe, out=tmp_path / "made", steps=2, **QUIET)
    other = fit(store, GanRecipe(4, (8, 4), 4, 1, (8, 8), 8), out=tmp_path / "other", steps=1, **QUIET)
    with pytest.raises(InputError, match="another run"):
        fit(store, dataclasses.replace(recipe, decoder=str(other)), out=out, steps=2, resume=True, **QUIET)
    wider = fit(store, GanRecipe(5, (8, 4), 4, 1, (8, 8), 8), out=tmp_path / "wider", steps=1, **QUIET)
    tensors = tuning(dataclasses.replace(recipe, decoder=str(wider)), store).tensors()
    with pytest.raises(BundleError, match="does not fit this recipe and data"):
        tuning(recipe, store).load(tensors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"per_class": 1}, r"per_class = 1, .* two images of a class \(--per-class\)"),
        ({"batch_size": 3}, r"batch_size = 3: .* \(--batch-size\)"),
        ({"networks": 0}, "networks = 0"),
        ({"epochs": 0}, "epochs = 0"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"average": 1.0}, "average = 1.0"),
    ],
)
def test_recipe_refuses(recipe: TuneRecipe, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        dataclasses.replace(recipe, **change)


def test_only_generators_are_tuned(store: ClassStore, tmp_path: Path) -> None:
    vae = fit(store, AutoencoderRecipe(channels=(8, 8), batch_size=8), out=tmp_path / "vae", steps=1, **QUIET)
    with pytest.raises(InputError, match=r"\(AutoencoderDecoder\): give a generator as `latentdc fit gan` wrote it"):
        tuning(TuneRecipe(str(vae)), store)
    with pytest.raises(InputError, match=r'"gna": no such decoder'):
        tuning(TuneRecipe("gna"), store)
