"""What the networks of a pool are trained on, for how long and with what memory, by trainings written out again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.networks import BlendedPool, Network, QueuePool, TrainedPool, Trainer
from latentdc.recipe import build, make_source, parse_recipe
from latentdc.source import Minibatches

LR, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


@dataclass(frozen=True, eq=False)
class Watched(Trainer):
    """A trainer that keeps every mini-batch its networks were shown, as they were shown it."""

    shown: list[Tensor] = field(default_factory=list)

    def train(self, network: Network, *given: Any, **options: Any) -> None:
        with network.register_forward_pre_hook(self._look):
            super().train(network, *given, **options)

    def _look(self, network: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        # The look at whether a training diverged is in eval mode and trains nothing.
        if network.training:
            self.shown.append(given[0].clone())


class Written:
    """SGD with momentum and weight decay written out; a new one has no momentum."""

    def __init__(self, net: Network) -> None:
        self.net = net.requires_grad_(True)
        self.velocity = [torch.zeros_like(each) for each in net.parameters()]

    def step(self, x: Tensor, y: Tensor) -> None:
        losses = -(y * self.net(x).log_softmax(1)).sum(1)
        gradients = torch.autograd.grad(losses.mean(), list(self.net.parameters()))
        with torch.no_grad():
            for place, (weight, gradient) in enumerate(zip(self.net.parameters(), gradients, strict=True)):
                self.velocity[place] = MOMENTUM * self.velocity[place] + gradient + DECAY * weight
                weight.sub_(LR * self.velocity[place])

    def is_like(self, net: Network) -> None:
        for mine, its in zip(self.net.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(its, mine.detach(), rtol=1e-5, atol=1e-7)


def _rows(images: Tensor, store: ClassStore) -> list[int]:
    """Which image of the store each of them is; -1 for none. No two of the store are alike."""
    equal = (images[:, None] == store.images.float()[None] / 255).flatten(2).all(2)
    return [int(row.nonzero()[0]) if bool(row.any()) else -1 for row in equal]


def _watched(store: ClassStore, **options: Any) -> Watched:
    return Watched(store.images, store.labels, store.spec.num_classes, **options)


def _trained_on_real(store: ClassStore, trainer: Trainer) -> TrainedPool:
    """Two passes of one mini-batch after a step, so that their order does not matter; a life of three steps."""
    rates = {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY}
    sizes = {"restart": 3, "epochs": 2, "num_images": 8, "batch_size": 8}
    return TrainedPool("mlp", store.spec, 0, trainer, 4, on="real", **sizes, **rates)  # type: ignore[arg-type]


def test_a_pool_on_real_images_is_idc_written_out(tiny_store: ClassStore) -> None:
    """Momentum lives on from step to step and ends with the network; every step brings other images."""
    trainer = _watched(tiny_store)
    pool = _trained_on_real(tiny_store, trainer)
    draws = []
    for life in range(2):
        written = Written(pool.network(life))
        for step in (3 * life, 3 * life + 1):
            trainer.shown.clear()
            written.is_like(pool.at(step))
            pool.advance(step)
            first, again = (sorted(_rows(images, tiny_store)) for images in trainer.shown)
            assert first == again
            assert (first[0] >= 0, len(set(first))) == (True, 8)
            batch = tiny_store.batch(first)
            for _ in range(2):
                written.step(batch.x, batch.y)
            written.is_like(pool.at(step + 1))
            draws.append(tuple(first))
        pool.advance(3 * life + 2)
    assert len(set(draws)) == 4


def _squared(x: Tensor, rng: torch.Generator) -> Tensor:
    return x.square()


def _halved(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image half itself and half the mean of its mini-batch: the order does not matter."""
    return (x + x.mean(0)) / 2, (y + y.mean(0)) / 2


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("augmented", [False, True])
def test_a_pool_trains_on_augmented_and_then_mixed_images(augmented: bool, mixed: bool, tiny_store: ClassStore) -> None:
    plain = _watched(tiny_store)
    pool = _trained_on_real(tiny_store, plain)
    pool.at(0)
    pool.advance(0)
    batch = tiny_store.batch(_rows(plain.shown[0], tiny_store))
    x, y = batch.x.square() if augmented else batch.x, batch.y
    if mixed:
        x, y = 0.5 * x + 0.5 * x.mean(0), 0.5 * y + 0.5 * y.mean(0)
    written = Written(pool.network(0))
    for _ in range(2):
        written.step(x, y)
    given = {"augment": _squared if augmented else None, "mix": _halved if mixed else None}
    pool = _trained_on_real(tiny_store, _watched(tiny_store, **given))
    pool.at(0)
    pool.advance(0)
    written.is_like(pool.at(1))


@pytest.mark.parametrize(
    ("pool", "trainings"),
    [
        ({"kind": "trained", "on": "real", "num_images": 36}, 1),
        ({"kind": "trained", "on": "syn"}, 1),
        ({"kind": "queue", "visit_steps": 1}, 2),
        ({"kind": "blended", "num": 1, "epochs": 1}, 1),
    ],
    ids=["real", "syn", "queue", "blended"],
)
def test_pools_of_a_recipe_train_under_its_augmentation_and_its_cut_mix(
    pool: dict[str, Any], trainings: int, tiny_store: ClassStore
) -> None:
    colours = {"kind": "dsa", "strategy": "color"}
    options: dict[str, dict[str, Any]] = {"plain": {}, "colours": {"train_augment": colours}, "cuts": {"cut_mix": 1.0}}
    seen = {}
    for name, more in options.items():
        shown = _shown_by_recipe(tiny_store, {"pool": pool, **more})
        assert len(shown) == trainings
        seen[name] = torch.cat(shown)
    assert min(_rows(seen["plain"], tiny_store)) >= 0
    assert set(_rows(seen["colours"], tiny_store)) == {-1}
    assert -1 in _rows(seen["cuts"], tiny_store)
    values = tiny_store.images.float() / 255
    from_store = (seen["cuts"][:, None] == values[None]).any(1)
    assert bool(from_store.all()), "CutMix moves no pixel and changes none"


def _shown_by_recipe(store: ClassStore, source: dict[str, Any]) -> list[Tensor]:
    """Mini-batches on which the pool of a recipe trains at its first step; the set it may train on is the store."""
    fixed = {"arch": "mlp", "width": 4, "num_per_class": 2}
    recipe = parse_recipe({"images_per_class": 1, "steps": 2, "init": "real", "source": {**fixed, **source}})
    made = make_source(build(recipe, store.spec), store, progress=False)
    assert isinstance(made, Minibatches)
    pool: Any = made.pool
    mine = pool.trainer
    pool.trainer = watched = _watched(store, augment=mine.augment, mix=mine.mix)
    pool.at(0)
    pool.advance(0, lambda: store.batch(range(len(store))))
    return watched.shown


def _weights(pool: QueuePool) -> dict[int, Tensor]:
    """All weights of every network of a queue, by its number."""
    found: dict[int, list[Tensor]] = {}
    for name, value in pool.state_dict().items():
        if torch.is_tensor(value):
            found.setdefault(int(name.split("/")[0]), []).append(value.flatten())
    return {index: torch.cat(values) for index, values in found.items()}


def test_a_queue_trains_the_two_it_visits_and_visits_all_in_turn(tiny_store: ClassStore) -> None:
    trainer = _watched(tiny_store)
    pool = QueuePool("mlp", tiny_store.spec, 0, trainer, 4, interval=100, visit_steps=1)
    pairs, matched = set(), set()
    for step in range(20):
        before, net = _weights(pool), pool.at(step)
        standing = torch.cat([value.flatten() for value in net.state_dict().values()])
        (first,) = (index for index, each in before.items() if torch.equal(each, standing))
        pool.advance(step)
        after = _weights(pool)
        changed = [index for index in before if not torch.equal(before[index], after[index])]
        assert len(changed) == 2
        assert first in changed, "the network matched under is one of the two"
        matched.add(first)
        pairs.add(tuple(changed))
    assert (pairs, matched) == ({(0, 1), (0, 2), (1, 2)}, {0, 1, 2})
    assert len(trainer.shown) == 40


def test_each_network_of_a_blend_trains_on_a_draw_of_its_own(tiny_store: ClassStore) -> None:
    trainer = _watched(tiny_store)
    pool = BlendedPool("mlp", tiny_store.spec, 0, trainer, 4, num=3, epochs=1, num_images=9)
    for index in range(3):
        pool.trained(index)
    draws = [tuple(sorted(_rows(images, tiny_store))) for images in trainer.shown]
    assert all(draw[0] >= 0 and len(set(draw)) == 9 for draw in draws)
    assert len(set(draws)) == 3
