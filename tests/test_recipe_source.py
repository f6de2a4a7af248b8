"""Recipes whose networks train, and whose images are chosen: built, condensed, taken up again, refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdc.checkpoint import Checkpoints
from latentdc.condense import Step, condense
from latentdc.data.sampling import EasiestSampler, KMeansSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Energy, Mean
from latentdc.errors import DivergenceError, InputError, RecipeError
from latentdc.networks import BlendedPool, FixedPool, QueuePool, TrainedPool
from latentdc.objectives import Match
from latentdc.recipe import (
    build,
    citations,
    dry_run,
    identity,
    load_recipe,
    make_bank,
    make_source,
    parse_recipe,
    to_toml,
)
from latentdc.representations import BatchStatistics, Features, Logits
from latentdc.source import Minibatches

TINY = {
    "images_per_class": 2,
    "steps": 5,
    "init": "real",
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6},
}
POOLS: dict[str, dict[str, Any]] = {
    "trained": {"kind": "trained", "on": "real", "restart": 4, "num_images": 8},
    "trained on the set": {"kind": "trained", "on": "syn", "restart": 3, "epochs": 2, "momentum": 0.0},
    "queue": {"kind": "queue", "num": 3, "interval": 2, "visit_steps": 1},
    "blended": {"kind": "blended", "num": 2, "epochs": 3, "num_images": 12},
    "fixed": {"kind": "fixed", "num": 2},
}


def _recipe(**source: Any) -> Any:
    return parse_recipe({**TINY, "source": {**TINY["source"], **source}})  # type: ignore[dict-item]


def _run(store: ClassStore, recipe: Any, folder: Path, *, stop: int | None = None) -> torch.Tensor:
    parts = build(recipe, store.spec)
    bank = make_bank(parts, store)

    def on_step(now: Step) -> None:
        if now.step == stop:
            raise KeyboardInterrupt

    condense(
        parts.decoder,
        bank,
        parts.objective,
        make_source(parts, store, progress=False),
        steps=recipe.steps,
        optim=recipe.optim,
        seed=0,
        checkpoints=Checkpoints(folder, identity(parts), every_steps=None, every_seconds=None),
        on_step=(on_step,),
        progress=False,
    )
    return bank.z["x"].detach().clone()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("sampler", ["uniform", {"kind": "kmeans", "every": 2}, {"kind": "easiest", "candidates": 9}])
def test_resumes_bit_for_bit(pool: str, sampler: Any, tiny_store: ClassStore, tmp_path: Path) -> None:
    trains = {} if pool == "fixed" else {"train_augment": "dsa", "cut_mix": 0.5}
    recipe = _recipe(pool=POOLS[pool], sampler=sampler, **trains)
    straight = _run(tiny_store, recipe, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        _run(tiny_store, recipe, tmp_path / "resumed", stop=2)
    assert torch.equal(straight, _run(tiny_store, recipe, tmp_path / "resumed"))
    assert not torch.equal(straight, _run(tiny_store, _recipe(), tmp_path / "plain"))


def test_options_reach_the_parts(tiny_store: ClassStore) -> None:
    for name, kind in {"trained": TrainedPool, "queue": QueuePool, "blended": BlendedPool}.items():
        recipe = _recipe(pool=POOLS[name], sampler={"kind": "kmeans", "weighted": False})
        source = make_source(build(recipe, tiny_store.spec), tiny_store, progress=False)
        assert isinstance(source, Minibatches)
        assert isinstance(source.pool, kind)
        assert source.pool.width == 8
        assert isinstance(source.sampler, KMeansSampler)
        assert (source.sampler.num_per_class, source.sampler.weighted) == (6, False)
        assert to_toml(recipe) == to_toml(parse_recipe(tomllib.loads(to_toml(recipe))))
    easiest = make_source(build(_recipe(sampler="easiest"), tiny_store.spec), tiny_store, progress=False)
    assert isinstance(easiest, Minibatches)
    assert isinstance(easiest.sampler, EasiestSampler)


def test_pool_and_sampler_are_credited() -> None:
    assert {"zhao2023idm", "liu2023dream"} <= set(citations(_recipe(pool="queue", sampler="kmeans")))
    assert not {"zhao2023idm", "liu2023dream"} & set(citations(_recipe()))
    on_real, on_syn = ({"kind": "trained", "on": on} for on in ("real", "syn"))
    assert "kim2022idc" in citations(_recipe(pool=on_real))
    assert "kim2022idc" not in citations(_recipe(pool=on_syn))


def test_options_that_are_others_ideas_are_credited() -> None:
    for see, key in (
        ({"kind": "features", "layer": "maps"}, "wang2022cafe"),
        ({"kind": "gradients", "scope": "all"}, "lee2022dcc"),
        ({"kind": "gradients", "layers": "convolutions"}, "kim2022idc"),
    ):
        by = "cosine" if see["kind"] == "gradients" else "mean"
        plain, special = (
            set(citations(parse_recipe({"images_per_class": 1, "objective": {"see": each, "by": by}})))
            for each in (see["kind"], see)
        )
        assert special - plain == {key}
    assert "chen2025discrepancy" in citations(load_recipe("wasserstein"))


@pytest.mark.parametrize(
    ("see", "by", "arch", "message"),
    [
        ("attention", "mean", "mlp", r"this network shows none: use a convolutional one"),
        ({"kind": "features", "layer": "maps"}, "mean", "mlp", r"tells nothing: use a convolutional one"),
        ({"kind": "gradients", "layers": "convolutions"}, "mean", "mlp", "convolutions"),
    ],
)
def test_what_a_network_does_not_show_is_refused_before_any_is_trained(
    tiny_store: ClassStore, see: object, by: str, arch: str, message: str
) -> None:
    recipe = _recipe(arch=arch, pool={"kind": "blended", "num": 1, "epochs": 1})
    matched = parse_recipe({"images_per_class": 1, "objective": {"see": see, "by": by}}).objective
    recipe = replace(recipe, objective=matched)
    with pytest.raises(InputError, match=message):
        build(recipe, tiny_store.spec)


def test_weights_that_match_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"weights = \[0\.0, 0\.0\]: nothing would be matched"):
        Match(Features(layer="all"), Mean(), (0.0, 0.0))


def test_what_was_not_there_changes_no_run(tiny_store: ClassStore) -> None:
    plain, trained = (identity(build(_recipe(**source), tiny_store.spec)) for source in ({}, {"pool": "trained"}))
    assert not any(name.startswith(("source.pool", "source.sampler", "source.cut_mix")) for name in plain)
    assert trained["source.pool.kind"] == "trained"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"pool": "traind"}, r'source\.pool = "traind": no such pool of networks\. Did you mean "trained"'),
        ({"pool": {"kind": "trained", "restat": 3}}, r'source\.pool\.restat: "restat": no such option of trained'),
        ({"pool": {"kind": "trained", "arch": "mlp"}}, r'source\.pool\.arch: "arch": no such option of trained'),
        ({"sampler": {"kind": "kmeans", "num_per_class": 3}}, r"source\.sampler\.num_per_class: .*no such option"),
        ({"sampler": "kmean"}, r'source\.sampler = "kmean": no such sampler\. Did you mean "kmeans"'),
        ({"train_augment": "dsaa"}, r'source\.train_augment = "dsaa": no such augmentation'),
        ({"cut_mix": 1.5}, r"source\.cut_mix = 1\.5: give a probability"),
    ],
)
def test_mistakes_are_refused_by_the_recipe(source: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(**source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"pool": {"kind": "trained", "on": "both"}}, r'source\.pool \(trained\): on = "both"'),
        ({"pool": {"kind": "trained", "restart": 0}}, r"restart = 0: give at least 1"),
        ({"pool": {"kind": "queue", "num": 1}}, r"num = 1: give at least 2"),
        ({"pool": {"kind": "trained", "momentum": -1.0}}, r"momentum = -1\.0.*must lie in \[0, 1\)"),
        ({"pool": {"kind": "blended", "epochs": 0}}, r"epochs = 0: give at least 1"),
        ({"sampler": {"kind": "easiest", "candidates": 2}}, r"candidates = 2: give at least as many"),
    ],
)
def test_values_are_refused_by_the_part(source: dict[str, Any], message: str, tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=message):
        make_source(build(_recipe(**source), tiny_store.spec), tiny_store, progress=False)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "sketch", "sampler": "kmeans"}, r'source\.sampler is read by source\.kind = "minibatches" alone'),
        ({"kind": "sketch", "cut_mix": 0.5}, r"source\.cut_mix is read by a pool that trains its networks alone"),
        ({"cut_mix": 0.5}, r"source\.cut_mix is read by a pool that trains its networks alone"),
        ({"train_augment": "dsa", "pool": {"kind": "fixed", "num": 2}}, r"source\.train_augment is read by a pool"),
    ],
)
def test_keys_that_nothing_reads_are_refused(source: dict[str, Any], message: str, tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=message):
        build(_recipe(**source), tiny_store.spec)


def test_accuracy_is_known_of_a_queue_alone(tiny_store: ClassStore) -> None:
    penalty = {"penalties": [{"kind": "cross-entropy", "by_accuracy": True}]}
    build(parse_recipe({**TINY, "objective": penalty}, overrides={"source.pool": POOLS["queue"]}), tiny_store.spec)
    with pytest.raises(RecipeError, match=r'by_accuracy = true: networks of source\.pool = "trained".*"queue"'):
        build(parse_recipe({**TINY, "objective": penalty}, overrides={"source.pool": "trained"}), tiny_store.spec)


def test_a_network_that_diverges_is_named(tiny_store: ClassStore, tmp_path: Path) -> None:
    wild = {"kind": "trained", "on": "real", "restart": 4, "num_images": 8, "lr": 1e30}
    with pytest.raises(DivergenceError, match=r"a network of the pool diverged.*lower source\.pool\.lr"):
        _run(tiny_store, _recipe(pool=wild), tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_dry_run_counts_what_happens_once_or_now_and_then(tiny_store: ClassStore) -> None:
    told = {}
    for name in ("blended", "queue", "fixed"):
        told[name] = dry_run(build(_recipe(pool=POOLS[name], sampler={"kind": "kmeans"}), tiny_store.spec), tiny_store)
    assert told["blended"]["network_seconds"] > 0 == told["queue"]["network_seconds"]
    network = sum(4 * value.numel() for value in FixedPool("mlp", tiny_store.spec, 0, 1, 8).network(0).parameters())
    for name, networks in (("blended", 2), ("queue", 3)):
        assert told[name]["checkpoint_bytes"] - told["fixed"]["checkpoint_bytes"] >= 2 * networks * network


def test_resnets_are_seen_through_once_they_are_trained(tiny_store: ClassStore) -> None:
    trained = {"kind": "blended", "num": 1, "epochs": 1, "num_images": 8, "trained_only": True}
    recipe = _recipe(arch="resnet18", width=4, pool=trained)
    source = make_source(build(recipe, tiny_store.spec), tiny_store, progress=False)
    assert source.view(0).net is not None
    with pytest.raises(InputError, match="batch normalisations"):
        make_source(build(_recipe(arch="resnet18", width=4), tiny_store.spec), tiny_store, progress=False).view(0)


def test_a_sketch_has_no_networks_that_train(tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=r'source\.pool = "trained": a sketch is taken once.*"minibatches"'):
        build(_recipe(kind="sketch", pool="trained"), tiny_store.spec)


def test_further_matches_and_weights_of_depths(tiny_store: ClassStore) -> None:
    table = {
        **TINY,
        "objective": {
            "see": {"kind": "features", "layer": "all"},
            "weights": [0.5, 1.0, 2.0],
            "plus": [{"see": "logits", "by": "energy", "weights": [0.1]}, {"see": "statistics"}],
        },
        "source": {**TINY["source"], "arch": "convnet"},  # type: ignore[dict-item]
    }
    recipe = parse_recipe(table)
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe
    parts = build(recipe, tiny_store.spec)
    source, syn = make_source(parts, tiny_store, progress=False), tiny_store.batch([0, 1, 14, 30])
    view = source.view(0)
    terms = [
        (Features(layer="all"), Mean(), (0.5, 1.0, 2.0)),
        (Logits(), Energy(), (0.1,)),
        (BatchStatistics(), Mean(), ()),
    ]
    torch.testing.assert_close(parts.objective(view, syn), sum(Match(*term)(view, syn) for term in terms))
    assert {"szekely2013energy", "liu2025wmdd"} <= set(citations(recipe))
    with pytest.raises(RecipeError, match=r'"logits", objective\.by = "energy".*source\.landmarks = 100'):
        build(parse_recipe(table, overrides={"source.kind": "sketch"}), tiny_store.spec)
    with pytest.raises(InputError, match=r"weights = \[1, 2\]: .* shows 3 tensors"):
        Match(Features(layer="all"), Mean(), (1, 2))(view, syn)
    with pytest.raises(RecipeError, match=r'weights = \[1\.0, 2\.0\]: see = "features" shows 3 tensors of "convnet"'):
        build(parse_recipe(table, overrides={"objective.weights": [1.0, 2.0]}), tiny_store.spec)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"weights": [-1.0]}, r"objective\.kind \(match\): weights = \[-1\.0\]: give finite numbers"),
        ({"plus": [{"sea": "logits"}]}, r'objective\.plus: "sea": no such key\. Did you mean "see"'),
        ({"plus": [{"by": "menn"}]}, r'objective\.plus\.by = "menn": no such discrepancy\. Did you mean "mean"'),
        ({"plus": "logits"}, r"objective\.plus = 'logits'"),
    ],
)
def test_mistaken_terms_are_refused(objective: Any, message: str, tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=message):
        build(parse_recipe({**TINY, "objective": objective}), tiny_store.spec)
