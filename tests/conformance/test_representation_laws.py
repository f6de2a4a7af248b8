"""Laws of every representation, parametrised by the table."""

from __future__ import annotations

import pytest
import torch

from latentdc.networks import FixedPool, Network
from latentdc.representations import REPRESENTATIONS, Representation, rows_of
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
    axes = 2 if see.kind == "points" else 3
    owner, w = rows_of(see, batch)
    assert all(points.ndim == axes and len(points) == len(owner) for points in shown)
    assert float(len(owner) if w is None else w.sum()) == len(batch.x)


def test_rows_do_not_see_each_other(see: Representation, net: Network, batch: Batch) -> None:
    """A row of points is an image's, a row of parameters a class's: the others may as well not be there."""
    kept = torch.tensor([2]) if see.kind == "points" else torch.tensor([4, 2, 1])  # All of class 1, in another order.
    alone = Batch(batch.x[kept], batch.y[kept], batch.owner[kept])
    row = 2 if see.kind == "points" else 1
    for whole, part in zip(see(net, batch, differentiable=False), see(net, alone, differentiable=False), strict=True):
        torch.testing.assert_close(whole[row : row + 1], part, rtol=1e-4, atol=1e-5)


def test_weight_two_is_the_image_twice(see: Representation, net: Network, batch: Batch) -> None:
    twice = torch.tensor([0, 1, 2, 3, 4, 4])
    double = Batch(batch.x[twice], batch.y[twice], batch.owner[twice])
    heavy = batch._replace(w=torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0]))
    (owner, w), (same_owner, same_w) = rows_of(see, heavy), rows_of(see, double)
    mass, same_mass = (
        torch.zeros(2).index_add_(0, o, torch.ones(len(o)) if v is None else v)
        for o, v in ((owner, w), (same_owner, same_w))
    )
    torch.testing.assert_close(mass, same_mass)
    if see.kind == "parameters":
        pairs = zip(see(net, heavy, differentiable=False), see(net, double, differentiable=False), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


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
