"""Laws of every pool: same (seed, step), same draw, on any rank and after a resume; frozen and unchanged by use."""

from __future__ import annotations

import inspect

import pytest
import torch

from latentdc.errors import BundleError, InputError
from latentdc.networks import ARCHITECTURES, POOLS, Pool, build, fingerprint
from latentdc.types import DataSpec

NORMALISED_BY_BATCH = {"resnet18"}
"""Architectures that no pool hands out."""
SPEC = DataSpec((1, 8, 8), ("a", "b"), (0.5,), (0.5,))


def _pool(kind: str, *, arch: str = "mlp", seed: int = 0) -> Pool:
    constructor = POOLS[kind]
    size = {"num": 3} if "num" in inspect.signature(constructor).parameters else {}
    return constructor(arch, SPEC, seed, width=8, **size)


@pytest.mark.parametrize("kind", POOLS)
def test_same_step_same_draw_in_any_order(kind: str) -> None:
    one, other = _pool(kind), _pool(kind)
    forward = [fingerprint(one.at(step)) for step in range(7)]
    backward = [fingerprint(other.at(step)) for step in reversed(range(7))]
    assert forward == backward[::-1]
    assert fingerprint(_pool(kind, seed=1).at(0)) not in forward


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("arch", sorted(ARCHITECTURES.keys() - NORMALISED_BY_BATCH))
def test_networks_are_frozen_and_use_changes_nothing(kind: str, arch: str) -> None:
    pool = _pool(kind, arch=arch)
    net = pool.at(2)
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    before = fingerprint(net)
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    net.observe(x).last.sum().backward()
    assert x.grad is not None
    assert fingerprint(net) == before


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("arch", sorted(NORMALISED_BY_BATCH))
def test_untrained_batch_normalisation_is_refused(kind: str, arch: str) -> None:
    with pytest.raises(InputError, match=rf'"{arch}" has \d+ batch normalisations.*Choose "convnet"'):
        _pool(kind, arch=arch).at(0)


@pytest.mark.parametrize("kind", POOLS)
def test_state_round_trip(kind: str) -> None:
    pool = _pool(kind)
    expected = fingerprint(pool.at(5))
    pool.advance(5)
    again = _pool(kind)
    again.load_state_dict(pool.state_dict())
    assert fingerprint(again.at(5)) == expected
    with pytest.raises(BundleError, match="seed = 0 instead of 9"):
        _pool(kind, seed=9).load_state_dict(pool.state_dict())


@pytest.mark.parametrize("kind", POOLS)
def test_a_student_never_gets_a_network_of_the_pool(kind: str) -> None:
    drawn = {fingerprint(_pool(kind).at(step)) for step in range(3)}
    students = {fingerprint(build("mlp", SPEC, seed=0, index=index, width=8)) for index in range(3)}
    assert not drawn & students
