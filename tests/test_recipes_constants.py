"""Numbers of the shipped recipes that no equation holds: rates, schedules, networks and sizes, as the papers have them.

Four recipes, and those without steps, are written out here with the papers' numbers; every other one is a chain of
changes of these, each compared value by value in ``test_recipes_matching``. So no number of any recipe changes unseen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_recipes_matching import CHANGES, as_written

from latentdc.clusters import kmeans
from latentdc.data.named import PUBLISHED
from latentdc.data.store import ClassStore
from latentdc.networks import FreshPool
from latentdc.networks.blended import BlendedPool
from latentdc.networks.trained import TrainedPool
from latentdc.recipe import build, load_recipe, make_source
from latentdc.resources import shipped
from latentdc.source import Minibatches


def _under(section: str, **values: Any) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in values.items()}


_PIXELS = {"decoder": "pixels", "images_per_class": 1, "source.kind": "minibatches", "source.arch": "convnet"}
_MODEL = {"decoder.kind": "diffusion", "images_per_class": 10, "storage": "fp16", "steps": 0}
_AS_IDC = {
    **_under("formation", kind="tiles", factor=2),
    **_under("augment", kind="dsa", strategy="color_crop_cutout", mode="I"),
    **_under("source.train_augment", kind="dsa", strategy="color_crop", mode="I"),
    "source.cut_mix": 0.5,
}

WRITTEN: dict[str, dict[str, Any]] = {
    # Published: 20,000 steps at a constant rate. Ours are a tenth, and the rate falls.
    "dm": {
        **_PIXELS,
        "init": "real",
        "augment": "dsa",
        "steps": 20_000 // 10,
        "source.num_per_class": 256,
        **_under("objective", see="features", by="mean"),
        **_under("optim", kind="sgd", lr=1.0, momentum=0.5, schedule="cosine"),
    },
    # Published for one image a class: 1,000 networks of one image step each.
    "dc": {
        **_PIXELS,
        "init": "prior",
        "augment": "none",
        "steps": 1000,
        "source.num_per_class": 256,
        **_under("objective", see="gradients", by="cosine"),
        **_under("source.pool", kind="trained", on="syn", restart=1, epochs=1, batch_size=256),
        **_under("source.pool", lr=0.01, momentum=0.0, weight_decay=0.0),
        **_under("optim", kind="sgd", lr=0.1, momentum=0.5),
    },
    # Published for grey images, but 2,000 networks of 100 steps each; ours are ten.
    "idc": {
        **_PIXELS,
        **_AS_IDC,
        "init": "real",
        "steps": 10 * 100,
        "source.num_per_class": 64,
        **_under("objective.see", kind="gradients", layers="convolutions"),
        **_under("objective.by", kind="norm", p=1),
        **_under("source.pool", kind="trained", on="real", restart=100, epochs=1, num_images=500, batch_size=64),
        **_under("optim", kind="sgd", lr=0.00008, momentum=0.5),
    },
    # Published: 10,000 steps, and 20 networks of 60 epochs. Ours are a fifth, and 5 of 5 on 10,000 images.
    "dance": {
        **_PIXELS,
        **_AS_IDC,
        "init": "real",
        "steps": 10_000 // 5,
        "source.num_per_class": 128,
        **_under("objective", see="features", by="mean"),
        **_under("objective.penalties.0", kind="cross-entropy", weight=1.0),
        **_under("source.pool", kind="blended", num=5, epochs=5, num_images=10_000),
        **_under("optim", kind="sgd", lr=0.08, momentum=0.5),
    },
    # Published: strength 0.7. The guidance is ours, here and below.
    "d4m": {
        **_MODEL,
        **_under("decoder", start=0.7, guidance=2.0),
        **_under("init", kind="prototypes", centres="k-means"),
    },
    # Published: λ = 0.1, and the modes guide the first 25 of 50 steps.
    "mgd3": {
        **_MODEL,
        **_under("decoder", start=25 / 50, guidance=2.0),
        **_under("init", kind="modes", centres="mixture", strength=0.1),
    },
    # Published: step 31 of 50. A thousand candidate sets are ours.
    "d3hr": {
        **_MODEL,
        **_under("decoder", start=31 / 50, guidance=2.0),
        **_under("init", kind="statistics", tries=1000),
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_recipe_is_as_written_here(name: str) -> None:
    assert as_written(name) == WRITTEN[name]


def test_every_recipe_is_written_here_or_follows_by_changes() -> None:
    reached = set(WRITTEN)
    for _ in CHANGES:
        reached |= {other for one, other in CHANGES if one in reached}
    assert reached == shipped("pipelines").keys()


@pytest.mark.parametrize(
    ("name", "published", "data"),
    [
        # 0.0001 (grey) and 0.005 (CIFAR-10) per ten images a class.
        ("idc", 1e-4 / 10, "fashion-mnist"),
        ("dream", 1e-4 / 10, "fashion-mnist"),
        ("channel-formation", 5e-3 / 10, "cifar10"),
        ("dance", 0.01, "fashion-mnist"),
    ],
)
def test_rates_of_images_in_their_range_are_over_the_variance(name: str, published: float, data: str) -> None:
    """Plain descent on ``x / σ`` moves x by σ² times the rate, which the recipes round."""
    deviations = PUBLISHED[data].std
    variance = sum(each**2 for each in deviations) / len(deviations)
    assert load_recipe(name).optim.lr == pytest.approx(published / variance, rel=0.02)


def test_the_rate_of_adam_is_over_the_deviation() -> None:
    """Its steps have a length of their own: 0.001 in [0, 1], to one digit."""
    assert round(0.001 / PUBLISHED["fashion-mnist"].std[0], 3) == load_recipe("ncfm").optim.lr


def _source(name: str, store: ClassStore) -> Minibatches:
    source = make_source(build(load_recipe(name), store.spec), store)
    assert isinstance(source, Minibatches)
    return source


@pytest.mark.parametrize(
    ("names", "plan"),
    [
        (("dc", "dsa", "dcc", "lcmat", "cafe"), (0.01, 0.0, 0.0, 256)),
        (("idc", "dream", "channel-formation"), (0.01, 0.9, 5e-4, 64)),
    ],
)
def test_networks_are_trained_as_published(
    names: tuple[str, ...], plan: tuple[Any, ...], tiny_store: ClassStore
) -> None:
    """Rate, momentum, weight decay and mini-batch; what a recipe leaves to the pool counts as well."""
    for name in names:
        pool = _source(name, tiny_store).pool
        assert isinstance(pool, TrainedPool)
        found = pool.plan
        assert (found.lr, found.momentum, found.weight_decay, found.batch_size) == plan, name


def test_blended_networks_are_trained_as_those_of_idc(tiny_store: ClassStore) -> None:
    for name in ("dance", "ncfm", "wmdd"):
        pool = _source(name, tiny_store).pool
        assert isinstance(pool, BlendedPool)
        assert (pool.plan.lr, pool.plan.momentum, pool.plan.weight_decay) == (0.01, 0.9, 5e-4), name


def test_dream_finds_128_centres_anew_every_ten_steps(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = make_store(130, num_classes=2), []

    def counted(points: torch.Tensor, num: int, *given: Any, **options: Any) -> torch.Tensor:
        asked.append(num)
        return kmeans(points, num, *given, **options)

    def rng(cls: int) -> torch.Generator:
        return torch.Generator().manual_seed(cls)

    monkeypatch.setattr("latentdc.data.sampling.kmeans", counted)
    sampler, net = _source("dream", store).sampler, FreshPool("convnet", store.spec, 0, width=4).at(0)
    looked: list[int] = []
    for step in range(25):
        before = len(asked)
        sampler.begin(step, rng, net)
        looked += [step] if len(asked) > before else []
        assert sampler([0], None, rng, net).w is None, "published weights are equal"
    assert looked == [0, 10, 20]
    assert asked == [128] * 6
