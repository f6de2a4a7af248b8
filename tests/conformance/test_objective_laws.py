"""Laws of every objective, and of ``Match`` with every pair of representation and discrepancy, from both sources."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES, Atoms, Energy, Norm, Sinkhorn, Sliced
from latentdc.errors import RecipeError
from latentdc.networks import FixedPool, FreshPool, fingerprint
from latentdc.objectives import OBJECTIVES, Match
from latentdc.representations import REPRESENTATIONS, Features, Gradients, rows_of
from latentdc.sketch import sketch
from latentdc.source import Minibatches, Source
from latentdc.types import Batch

Store = Callable[..., ClassStore]
MATCHES = [
    (see, by)
    for see, look in REPRESENTATIONS.items()
    for by, part in DISCREPANCIES.items()
    if look.kind in part.accepts
]
SEES: dict[str, Callable[[], Any]] = {
    **REPRESENTATIONS,
    "maps": partial(Features, layer="maps"),
    "convolutions": partial(Gradients, layers="convolutions"),
    "whole": partial(Gradients, rows="whole"),
}
BYS: dict[str, Callable[[], Any]] = {
    **DISCREPANCIES,
    "absolute": partial(Norm, p=1),
    "transport": partial(Sinkhorn, blur=0.0),
    "sinkhorn-1": partial(Sinkhorn, p=1),
    "sliced-energy": partial(Sliced, metric="energy"),
    "unbiased-energy": partial(Energy, relative=True, unbiased=True),
    "plain-atoms": partial(Atoms, squared=False),
}
MATCHES += [("maps", "mean"), ("convolutions", "mean"), ("convolutions", "absolute"), ("whole", "cosine")]
MATCHES += [("features", by) for by in BYS if by not in DISCREPANCIES]
OTHERS = {"prefixes": [("features", "mean"), ("features", "energy"), ("gradients", "cosine")]}
"""Pairs for each objective that is no plain match: one of each kind, of sums and of points."""
CASES = [
    (objective, see, by, source)
    for objective, pairs in {"match": MATCHES, **OTHERS}.items()
    for see, by in pairs
    for source in ("mini-batches", "sketch")
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, make_store: Store) -> tuple[Match, Source, Batch]:
    objective, see, by, kind = request.param
    store = make_store(6, size=16)
    match: Match = OBJECTIVES[objective](SEES[see](), BYS[by]())  # type: ignore[call-arg,assignment]
    if kind == "sketch":
        pool = FixedPool("convnet", store.spec, 0, 2, width=4)
        landmarks = None if match.by.sketchable else 4
        source: Source = sketch(store, pool, DSA(), match.see, match.by, landmarks=landmarks, progress=False)
    else:
        fresh = FreshPool("convnet", store.spec, 0, width=4)
        source = Minibatches(store, UniformSampler(store, 4), fresh, DSA(), seed=0)
    syn = store.batch([0, 7, 8, 13, 1, 14])  # Two of each class: a single one has no variance.
    return match, source, syn._replace(x=(syn.x + 0.1).requires_grad_(), row=torch.arange(6))


def test_every_objective_is_exercised() -> None:
    assert set(OBJECTIVES) == {"match", *OTHERS}, "give a new objective its cases here"


def test_scalar_finite_and_gradient_reaches_images(case: tuple[Match, Source, Batch]) -> None:
    match, source, syn = case
    loss = match(source.view(0), syn)
    assert loss.shape == ()
    assert bool(loss.isfinite())
    loss.backward()
    assert syn.x.grad is not None
    assert bool((syn.x.grad.flatten(1).abs().sum(1) > 0).all())


def test_network_is_left_as_it_was(case: tuple[Match, Source, Batch]) -> None:
    match, source, syn = case
    view = source.view(1)
    before, mode = fingerprint(view.net), view.net.training
    match(view, syn).backward()
    assert fingerprint(view.net) == before
    assert view.net.training == mode
    assert all(parameter.grad is None for parameter in view.net.parameters())


def test_class_shards_sum_to_the_whole(case: tuple[Match, Source, Batch]) -> None:
    match, source, syn = case
    assert match.scope == "class"
    parts = []
    for classes in ([1], [0, 2]):
        rows = torch.isin(syn.owner, torch.tensor(classes)).nonzero().flatten()
        parts.append(match(source.view(5), Batch(syn.x[rows], syn.y[rows], syn.owner[rows], None, syn.row[rows])))
    torch.testing.assert_close(sum(parts), match(source.view(5), syn), rtol=1e-4, atol=1e-5)


def test_equals_summary_against_points(case: tuple[Match, Source, Batch]) -> None:
    """The restatement: look at both sides under the same network and draw, then measure."""
    match, source, syn = case
    if type(match) is not Match:
        return  # Its own restatement is in reference/.
    view = source.view(2)
    (real,) = view.real(match.looks, [0, 1, 2])
    shown = match.see(view.net, view.augment(syn), differentiable=False)
    owner, w = rows_of(match.see, syn)
    expected = sum(float(match.by(s, p, owner, w)) for s, p in zip(real, shown, strict=True))
    assert float(match(view, syn).detach()) == pytest.approx(expected, rel=1e-4)


def test_loss_is_measured_in_full_precision(case: tuple[Match, Source, Batch]) -> None:
    match, source, syn = case
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = match(source.view(0), syn)
    assert half.dtype == torch.float32
    assert float(half.detach()) == pytest.approx(float(match(source.view(0), syn).detach()), rel=0.1)


def test_all_layers_add_up(make_store: Store) -> None:
    store = make_store(6, size=16)
    source = Minibatches(store, UniformSampler(store, 4), FreshPool("convnet", store.spec, 0, width=4), DSA(), seed=0)
    syn, by = store.batch([0, 7, 13]), DISCREPANCIES["mean"]()
    last, every = (float(Match(Features(layer=layer), by)(source.view(0), syn)) for layer in ("last", "all"))
    assert every > last > 0


def test_match_refuses_what_the_discrepancy_does_not_accept() -> None:
    with pytest.raises(RecipeError, match="Gradients shows parameters, but Energy accepts points"):
        Match(Gradients(), DISCREPANCIES["energy"]())
