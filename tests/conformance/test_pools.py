"""Laws of every pool: same (seed, step), same draw, on any rank and after a resume; frozen and unchanged by use."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from tiny_backbones import backbone_folder

from latentdc.errors import BundleError, InputError
from latentdc.networks import ARCHITECTURES, POOLS, Pool, Trainer, build, fingerprint
from latentdc.types import Batch, DataSpec

NORMALISED_BY_BATCH = {"resnet18"}
"""Architectures that no pool hands out."""
SPEC = DataSpec((1, 8, 8), ("a", "b"), (0.5,), (0.5,))


GIVEN = {"pretrained"}
"""Pools of one network that others trained, whatever the seed and architecture."""
SMALL = {"num": 3, "restart": 3, "epochs": 2, "num_images": 6, "interval": 2, "visit_steps": 1}
FOLLOWS = [kind for kind, pool in POOLS.items() if kind in ("trained", "queue")]
"""Pools whose networks follow from the steps before: they are walked in order."""


def _images(seed: int, num: int = 12) -> Batch:
    x = torch.rand(num, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    owner = torch.arange(num) % 2
    return Batch(x, torch.nn.functional.one_hot(owner, 2).float(), owner)


def _pool(kind: str, *, arch: str = "mlp", seed: int = 0, width: int = 8, **options: object) -> Pool:
    constructor = POOLS[kind]
    takes = inspect.signature(constructor).parameters
    size = {name: value for name, value in (SMALL | options).items() if name in takes}
    if kind in GIVEN:
        size["model"] = backbone_folder()
    made_of: tuple[object, ...] = (arch, SPEC, seed)
    if constructor.needs_trainer:
        real = _images(7, 20)
        made_of += (Trainer((255 * real.x).to(torch.uint8), real.owner, 2),)
    return constructor(*made_of, width=width, **size)


def _walk(pool: Pool, steps: range) -> list[str]:
    """Fingerprints of the networks of some steps, each followed by what the pool does after it."""
    seen = []
    for step in steps:
        seen.append(fingerprint(pool.at(step)))
        pool.advance(step, lambda step=step: _images(step))
    return seen


@pytest.mark.parametrize("kind", POOLS)
def test_same_steps_same_draws(kind: str) -> None:
    forward = _walk(_pool(kind), range(7))
    assert forward == _walk(_pool(kind), range(7))
    assert len(set(forward)) == 1 if kind in GIVEN else len(set(forward)) > 2
    assert (fingerprint(_pool(kind, seed=1).at(0)) in forward) == (kind in GIVEN)


@pytest.mark.parametrize("kind", sorted(POOLS.keys() - set(FOLLOWS)))
def test_a_draw_does_not_need_the_steps_before(kind: str) -> None:
    pool = _pool(kind)
    backward = [fingerprint(pool.at(step)) for step in reversed(range(7))]
    assert backward[::-1] == _walk(_pool(kind), range(7))


@pytest.mark.parametrize("kind", FOLLOWS)
def test_a_draw_that_needs_them_is_refused_without(kind: str) -> None:
    with pytest.raises(InputError, match=r"step 5.*begin at step 0 or go on from a checkpoint"):
        _pool(kind).at(5)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("arch", sorted(ARCHITECTURES.keys() - NORMALISED_BY_BATCH))
def test_networks_are_frozen_and_use_changes_nothing(kind: str, arch: str) -> None:
    pool = _pool(kind, arch=arch)
    _walk(pool, range(2))
    net = pool.at(2)
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    before = fingerprint(net)
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    net.observe(x).last.sum().backward()
    assert x.grad is not None
    assert fingerprint(net) == before


@pytest.mark.parametrize("kind", sorted(POOLS.keys() - GIVEN))
@pytest.mark.parametrize("arch", sorted(NORMALISED_BY_BATCH))
def test_untrained_batch_normalisation_is_refused(kind: str, arch: str) -> None:
    with pytest.raises(InputError, match=rf'"{arch}" has \d+ batch normalisations.*Choose "convnet"'):
        _pool(kind, arch=arch).at(0)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_state_round_trip(kind: str, done: int) -> None:
    """A run that goes on from a checkpoint sees the networks that it would have seen without a break."""
    pool = _pool(kind)
    _walk(pool, range(done))
    saved = {
        name: value.clone() if torch.is_tensor(value) else json.loads(json.dumps(value))
        for name, value in pool.state_dict().items()
    }
    again = _pool(kind)
    again.load_state_dict(saved)
    assert _walk(again, range(done, done + 4)) == _walk(pool, range(done, done + 4))
    with pytest.raises(BundleError, match="seed = 0 instead of 9"):
        _pool(kind, seed=9).load_state_dict(saved)


@pytest.mark.parametrize("kind", POOLS)
def test_a_student_never_gets_a_network_of_the_pool(kind: str) -> None:
    drawn = set(_walk(_pool(kind), range(3)))
    students = {fingerprint(build("mlp", SPEC, seed=0, index=index, width=8)) for index in range(3)}
    assert not drawn & students
