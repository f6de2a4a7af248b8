"""What is particular to each pool; the laws all share are in conformance/test_pools.py."""

from __future__ import annotations

import pytest
import torch

from latentdc.errors import InputError
from latentdc.networks import FixedPool, FreshPool, fingerprint
from latentdc.networks import pool as pool_module
from latentdc.types import DataSpec

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
