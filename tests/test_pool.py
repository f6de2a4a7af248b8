"""What is particular to each pool; the laws all share are in conformance/test_pools.py."""

from __future__ import annotations

import pytest
import torch

from latentdc.errors import InputError
from latentdc.networks import BlendedPool, FixedPool, FreshPool, QueuePool, TrainedPool, Trainer, fingerprint
from latentdc.networks import pool as pool_module
from latentdc.types import Batch, DataSpec

SPEC = DataSpec((1, 8, 8), ("a", "b"), (0.5,), (0.5,))


def test_fresh_networks_all_differ() -> None:
    pool = FreshPool("mlp", SPEC, 0, 8)
    assert len({fingerprint(pool.at(step)) for step in range(6)}) == 6


def test_fixed_pool_walks_a_new_permutation_each_round() -> None:
    pool = FixedPool("mlp", SPEC, 0, 7, width=8)
    rounds = [[pool.index(7 * r + i) for i in range(7)] for r in range(4)]
    assert all(sorted(walk) == list(range(7)) for walk in rounds)
    assert len({tuple(walk) for walk in rounds}) > 1
    assert len(pool) == 7
    assert fingerprint(pool.at(9)) == fingerprint(pool.network(pool.index(9)))


def test_fixed_networks_are_kept_only_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FixedPool("mlp", SPEC, 0, 3, width=8)
    assert pool.network(1) is pool.network(1)
    size = sum(p.numel() for p in pool.network(1).parameters())
    monkeypatch.setattr(pool_module, "_KEPT_PARAMETERS", 2 * size)
    other = FixedPool("mlp", SPEC, 0, 3, width=8)
    assert other.network(0) is other.network(0)
    assert other.network(1) is other.network(1)
    assert other.network(2) is not other.network(2)
    assert fingerprint(other.network(2)) == fingerprint(pool.network(2))


def test_a_longer_pool_begins_with_the_same_networks() -> None:
    short, long = FixedPool("mlp", SPEC, 0, 2, width=8), FixedPool("mlp", SPEC, 0, 5, width=8)
    assert [fingerprint(short.network(i)) for i in range(2)] == [fingerprint(long.network(i)) for i in range(2)]


def test_networks_go_to_the_device_asked_for() -> None:
    pool = FixedPool("mlp", SPEC, 0, 2, width=8)
    pool.network(0)
    assert pool.to("meta") is pool
    assert {p.device for i in range(2) for p in pool.network(i).parameters()} == {torch.device("meta")}


def test_requests_a_fixed_pool_refuses() -> None:
    with pytest.raises(InputError, match="num = 0"):
        FixedPool("mlp", SPEC, 0, 0)
    with pytest.raises(InputError, match="network 2 of a pool of 2"):
        FixedPool("mlp", SPEC, 0, 2).network(2)


def test_a_queue_takes_in_the_fresh_and_lets_the_oldest_go() -> None:
    """Its networks know how well they do: nothing at first, and most of a separable set after some visits."""
    labels = torch.arange(24) % 2
    images = torch.zeros(24, 1, 8, 8, dtype=torch.uint8)
    images[labels == 1] = 200
    pool = QueuePool("mlp", SPEC, 0, Trainer(images, labels, 2), 8, num=4, interval=3, visit_steps=30)
    assert (sorted(pool._nets), pool.at(0).accuracy) == ([0, 1, 2], 0.0)
    for step in range(9):
        pool.at(step)
        pool.advance(step)
    assert sorted(pool._nets) == [2, 3, 4, 5]
    assert pool._nets[5].accuracy == 0.0
    again = QueuePool("mlp", SPEC, 0, Trainer(images, labels, 2), 8, num=4, interval=3, visit_steps=30)
    again.load_state_dict(pool.state_dict())
    reached = [net.accuracy for net in pool._nets.values()]
    assert max(value for value in reached if value is not None) > 0.9
    assert [net.accuracy for net in again._nets.values()] == reached


def test_a_trained_pool_is_dc_written_out() -> None:
    """Plain SGD over the set after every step but the last of a network's life, whole set at a time."""
    rng = torch.Generator().manual_seed(1)
    syn = Batch(torch.rand(4, 1, 8, 8, generator=rng), torch.eye(2).repeat(2, 1), torch.arange(4) % 2)
    options = {"on": "syn", "restart": 3, "epochs": 2, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4}
    pool = TrainedPool("mlp", SPEC, 0, Trainer(torch.zeros(2, 1, 8, 8), torch.arange(2), 2), 8, **options)
    net = pool.network(0)
    for step in range(2):
        pool.at(step)
        pool.advance(step, lambda: syn)
        for _ in range(2):
            net.requires_grad_(True).zero_grad()
            torch.nn.functional.cross_entropy(net(syn.x), syn.owner).backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter -= 0.01 * parameter.grad
        for name, parameter in pool.at(step + 1).named_parameters():
            torch.testing.assert_close(parameter, net.get_parameter(name).detach(), rtol=1e-5, atol=1e-7)
    pool.advance(2, lambda: syn)
    assert fingerprint(pool.at(3)) == fingerprint(pool.network(1))


def test_a_blend_lies_between_a_network_and_its_training() -> None:
    images, labels = torch.randint(0, 255, (12, 1, 8, 8)).to(torch.uint8), torch.arange(12) % 2
    trainer = Trainer(images, labels, 2)
    pool = BlendedPool("mlp", SPEC, 0, trainer, 8, num=1, epochs=20)
    first, last = pool.network(0).state_dict(), pool.trained(0)
    shares = []
    for step in range(6):
        blend = pool.at(step).state_dict()
        moved = [((blend[n] - first[n]).norm() / (last[n] - first[n]).norm()).item() for n in first if "weight" in n]
        assert max(moved) - min(moved) < 1e-3
        shares.append(moved[0])
    assert 0 <= min(shares) < 0.5 < max(shares) <= 1
    whole = BlendedPool("mlp", SPEC, 0, trainer, 8, num=1, epochs=20, trained_only=True).at(3)
    assert all(torch.equal(value, last[name]) for name, value in whole.state_dict().items())
