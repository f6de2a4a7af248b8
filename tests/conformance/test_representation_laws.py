"""Laws of every representation, parametrised by the table."""

from __future__ import annotations

import pytest
import torch

from latentdc.networks import FixedPool, Network
from latentdc.representations import REPRESENTATIONS, Representation
from latentdc.types import Batch, DataSpec

SPEC = DataSpec((1, 16, 16), ("a", "b"), (0.5,), (0.25,))


@pytest.fixture
def net() -> Network:
    return FixedPool("convnet", SPEC, 0, 1, width=4).network(0)


@pytest.fixture
def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    owner = torch.tensor([0, 1, 1, 0, 1])
    return Batch(torch.rand(5, 1, 16, 16, generator=rng), torch.eye(2)[owner], owner)


@pytest.fixture(params=REPRESENTATIONS)
def see(request: pytest.FixtureRequest) -> Representation:
    return REPRESENTATIONS[request.param]()


def test_shapes_and_kind(see: Representation, net: Network, batch: Batch) -> None:
    shown = see(net, batch, differentiable=False)
    assert shown
    assert see.kind in {"points", "parameters"}
    rows = len(batch.x) if see.kind == "points" else SPEC.num_classes
    assert all(points.ndim == 2 and len(points) == rows for points in shown)


def test_rows_do_not_see_each_other(see: Representation, net: Network, batch: Batch) -> None:
    if see.kind != "points":
        pytest.fail("give representations of parameters a law of their own here")
    alone = Batch(batch.x[2:3], batch.y[2:3], batch.owner[2:3])
    for whole, part in zip(see(net, batch, differentiable=False), see(net, alone, differentiable=False), strict=True):
        torch.testing.assert_close(whole[2:3], part, rtol=1e-4, atol=1e-5)


def test_graph_only_when_asked(see: Representation, net: Network, batch: Batch) -> None:
    leaf = batch._replace(x=batch.x.clone().requires_grad_())
    assert not any(points.requires_grad for points in see(net, leaf, differentiable=False))
    sum(points.square().sum() for points in see(net, leaf, differentiable=True)).backward()
    assert leaf.x.grad is not None
    assert float(leaf.x.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_full_precision_under_autocast(see: Representation, net: Network, batch: Batch) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(points.dtype == torch.float32 for points in see(net, batch, differentiable=False))
