"""The shipped recipes that learn through a generator run from start to bundle on the smallest models."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_diffusion
from tiny_parts import tiny_decoder

from latentdc.data.store import ClassStore
from latentdc.objectives import Match, Pairwise, Penalised
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import build, load_recipe, make_bank
from latentdc.representations import Features, Gradients
from latentdc.resources import find

TINY: dict[str, Any] = {
    "glad-dm": lambda: tiny_decoder("gan:mapped-f1"),
    "glad-dc": lambda: tiny_decoder("gan:mapped-f1"),
    "ld3m-dm": lambda: tiny_diffusion(skip="state", learn_condition=True, steps=3).requires_grad_(False).eval(),
    "it-gan": lambda: tiny_decoder("gan"),
}
"""A decoder of the kind and in the space that each recipe names."""
SMALL = {"decoder": "pixels", "steps": 2, "images_per_class": 2, "source.width": 4, "source.num_per_class": 5}
"""What makes a run small; the decoder is given beside the recipe."""
INVERTS = {"ld3m-dm", "it-gan"}


def changes(name: str) -> dict[str, Any]:
    return SMALL | ({"init.steps": 2} if name in INVERTS else {})


@pytest.mark.parametrize("name", TINY)
def test_recipe_runs_from_start_to_bundle(name: str, tiny_store: ClassStore, tmp_path: Path) -> None:
    decoder = TINY[name]()
    pipe = CondensationPipeline(decoder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    made = pipe(tiny_store, name, out=tmp_path / "run", overrides=changes(name))
    latents = made.bundle.bank.latents()
    start = make_bank(build(load_recipe(name, overrides=changes(name)), tiny_store.spec, decoder=decoder), tiny_store)
    assert latents.keys() == start.z.keys()
    for key, value in latents.items():
        assert bool(value.isfinite().all())
        assert not any(torch.equal(row, began) for row in value for began in start.z[key]), f"{key} was not learned"
    told = made.bundle.provenance["start"]
    assert told["kind"] == ("inversion" if name in INVERTS else "prior")


@pytest.mark.parametrize("name", TINY)
def test_recipe_names_a_decoder_of_that_kind_and_its_keys(name: str) -> None:
    table = tomllib.loads(find("pipelines", name).read_text(encoding="utf-8"))
    decoder = table["decoder"]
    kind, settings = (decoder, {}) if isinstance(decoder, str) else (decoder["kind"], decoder)
    assert type(TINY[name]()).__name__.lower() == f"{kind}decoder"
    for setting, value in settings.items():
        assert setting == "kind" or TINY[name]().config[setting] == value
    lr = table["optim"]["lr"]
    assert not isinstance(lr, dict) or lr.keys() == TINY[name]().latent_shapes.keys()


def test_objectives_are_those_of_the_papers(tiny_store: ClassStore) -> None:
    made = {
        name: build(load_recipe(name, overrides=changes(name)), tiny_store.spec, decoder=TINY[name]()).objective
        for name in TINY
    }
    for name in ("glad-dm", "ld3m-dm"):
        assert isinstance(made[name], Match)
        assert isinstance(made[name].see, Features)
    assert isinstance(made["glad-dc"], Match)
    assert isinstance(made["glad-dc"].see, Gradients)
    both = made["it-gan"]
    assert isinstance(both, Penalised)
    assert [type(part) for part in both.parts] == [Match, Pairwise]
