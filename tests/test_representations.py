"""The choices of ``Features``: layers and the random projection."""

from __future__ import annotations

import pytest
import torch

from latentdc.errors import InputError
from latentdc.networks import FixedPool
from latentdc.representations import Features
from latentdc.types import Batch, DataSpec

SPEC = DataSpec((1, 16, 16), ("a", "b"), (0.5,), (0.25,))
NET = FixedPool("convnet", SPEC, 0, 1, width=64).network(0)
OWNER = torch.zeros(40, dtype=torch.int64)
BATCH = Batch(torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.eye(2)[OWNER], OWNER)


def test_layers() -> None:
    (last,) = Features()(NET, BATCH, differentiable=False)
    every = Features(layer="all")(NET, BATCH, differentiable=False)
    assert torch.equal(last, NET.observe(BATCH.x).last)
    assert torch.equal(every[-1], last)
    assert [points.shape[1] for points in every] == [64 * 8 * 8, 64 * 4 * 4, 64 * 2 * 2]


def test_projection_keeps_distances() -> None:
    (full,) = Features()(NET, BATCH, differentiable=False)
    (small,) = Features(project=128)(NET, BATCH, differentiable=False)
    assert small.shape == (40, 128)
    ratio = torch.pdist(small) / torch.pdist(full)
    assert float((ratio - 1).abs().max()) < 0.35
    assert abs(float(ratio.mean()) - 1) < 0.1


def test_projection_is_seeded() -> None:
    one, same, other = (Features(project=8, seed=seed)(NET, BATCH, differentiable=False)[0] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    (narrow,) = Features(project=10_000)(NET, BATCH, differentiable=False)
    assert narrow.shape[1] == 64 * 2 * 2


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match="last"):
        Features(layer="first")
    with pytest.raises(InputError, match="positive"):
        Features(project=0)
