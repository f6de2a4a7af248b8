"""Laws of every sampler, and what is particular to each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from latentdc.data.sampling import SAMPLERS, EasiestSampler, KMeansSampler, Sampler
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.networks import FixedPool, Network
from latentdc.seeding import stream


def _sampler(name: str, store: ClassStore, num: int = 4) -> Sampler:
    return SAMPLERS[name](store, num)


def _net(store: ClassStore, index: int = 0) -> Network:
    return FixedPool("mlp", store.spec, 0, 3, width=8).network(index)


def _rng_of(step: int, purpose: str = "real") -> Callable[[int], torch.Generator]:
    return lambda cls: stream(0, purpose, step, cls)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_depends_on_its_class_alone(name: str, tiny_store: ClassStore) -> None:
    sampler, net = _sampler(name, tiny_store), _net(tiny_store)
    sampler.begin(0, _rng_of(0, "sampler"), net)
    both, one = (sampler(classes, None, _rng_of(0), net) for classes in ([2, 0], [2]))
    assert both.owner.tolist() == [2] * 4 + [0] * 4
    assert torch.equal(both.x[:4], one.x)
    assert torch.equal(sampler([2], 2, _rng_of(0), net).owner, one.owner[:2])
    assert both.row is None
    real = {tuple(image.flatten().tolist()) for image in tiny_store.batch(range(len(tiny_store))).x}
    drawn = {tuple(image.flatten().tolist()) for image in both.x}
    assert drawn <= real


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_class_with_fewer_images_gives_all_of_them(name: str, tiny_store: ClassStore) -> None:
    few = tiny_store.subset([*range(3), *range(tiny_store.offsets[1], len(tiny_store))])
    sampler, net = _sampler(name, few, 6), _net(few)
    sampler.begin(0, _rng_of(0), net)
    assert (sampler([0, 1], None, _rng_of(0), net).owner == 0).sum() == 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_goes_on_where_it_stood(name: str, tiny_store: ClassStore) -> None:
    sampler, later = _sampler(name, tiny_store), _net(tiny_store, 1)
    sampler.begin(0, _rng_of(0), _net(tiny_store))
    again = _sampler(name, tiny_store)
    again.load_state_dict(sampler.state_dict())
    for each in (sampler, again):
        each.begin(1, _rng_of(1), later)
    one, other = (each([0, 1, 2], None, _rng_of(1), later) for each in (sampler, again))
    assert torch.equal(one.x, other.x)
    assert (one.w is None) == (other.w is None)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_class_without_images_gives_none(name: str, tiny_store: ClassStore) -> None:
    store = tiny_store.subset(torch.arange(24))
    sampler = _sampler(name, store)
    sampler.begin(0, _rng_of(0), _net(store))
    assert sampler([1, 2], 2, _rng_of(0), _net(store)).owner.tolist() == [1, 1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_images_are_refused(name: str, tiny_store: ClassStore) -> None:
    with pytest.raises(InputError, match="num_per_class = 0: give at least 1"):
        _sampler(name, tiny_store, 0)


def test_the_easiest_are_those_with_the_least_loss(tiny_store: ClassStore) -> None:
    net = _net(tiny_store)
    batch = EasiestSampler(tiny_store, 3, 1000)([1], None, _rng_of(0), net)
    every = tiny_store.batch(range(*tiny_store.offsets[1:3]))
    losses = torch.nn.functional.cross_entropy(net(every.x), every.owner, reduction="none")
    assert torch.equal(batch.x, every.x[losses.argsort()[:3]])
    with pytest.raises(InputError, match="candidates = 2: give at least as many as num_per_class = 3"):
        EasiestSampler(tiny_store, 3, 2)


def test_medoids_weighted_by_mass_estimate_the_class_mean(tiny_store: ClassStore) -> None:
    """One cluster of the weight 1; as many clusters as images give each its own, and the mean exactly."""
    net = _net(tiny_store)
    count = tiny_store.count(0)
    for num in (1, count):
        sampler = KMeansSampler(tiny_store, num, iterations=50)
        sampler.begin(0, _rng_of(0), net)
        batch = sampler([0], None, _rng_of(0), net)
        assert batch.w is not None
        assert float(batch.w.sum()) == pytest.approx(1)
    own = tiny_store.of_class(0).float() / 255
    torch.testing.assert_close((batch.w.view(-1, 1, 1, 1) * batch.x).sum(0), own.mean(0))


def test_medoids_are_kept_between_two_looks_and_unweighted_on_request(tiny_store: ClassStore) -> None:
    sampler = KMeansSampler(tiny_store, 3, every=2, weighted=False)
    seen = []
    for step in range(4):
        net = _net(tiny_store, step // 2)
        sampler.begin(step, _rng_of(step), net)
        seen.append(sampler([0, 1, 2], None, _rng_of(step), net))
    assert all(each.w is None for each in seen)
    assert torch.equal(seen[0].x, seen[1].x)
    assert torch.equal(seen[2].x, seen[3].x)
    assert not torch.equal(seen[1].x, seen[2].x)
    for name in ("every", "candidates", "iterations"):
        with pytest.raises(InputError, match=f"{name} = 0: give at least 1"):
            KMeansSampler(tiny_store, 3, **{name: 0})
