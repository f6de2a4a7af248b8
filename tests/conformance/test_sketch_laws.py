"""Laws of the sketch, for all that it can hold: what it says of the real set is what the real set says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentdc.data.augment import DSA
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES, Cosine, Discrepancy, Mean
from latentdc.errors import InputError
from latentdc.networks import FixedPool
from latentdc.objectives import Match
from latentdc.representations import REPRESENTATIONS, Additive, Features, Gradients, Representation, rows_of
from latentdc.sketch import Sketch, sketch

Store = Callable[..., ClassStore]
ADDITIVE = [name for name, part in DISCREPANCIES.items() if part.sketchable]
SEES: dict[str, Representation] = {
    **{name: part() for name, part in REPRESENTATIONS.items()},
    "all": Features(layer="all"),
    "projected": Features(project=6),
    "convolutions": Gradients(layers="convolutions"),
    "whole": Gradients(rows="whole"),
    "joint": Gradients(scope="all"),
    "projected-gradients": Gradients(project=5),
}
PAIRS = [(see, by) for see, look in SEES.items() for by in ADDITIVE if look.kind in DISCREPANCIES[by].accepts]
ONCE = [(see, "mean") for see in SEES if see != "features"] + [("features", by) for by in ADDITIVE]
"""Every representation and every discrepancy."""


@pytest.fixture(scope="module")
def store(make_store: Store) -> ClassStore:
    return make_store(9)


def _take(store: ClassStore, by: Discrepancy, see: Representation | None = None, **options: object) -> Sketch:
    pool = FixedPool("convnet", store.spec, 0, 2, width=4)
    options = {"num_pairs": 2, "batch_size": 14, "progress": False, **options}
    return sketch(store, pool, DSA(), see or Features(), by, **options)  # type: ignore[arg-type]


def test_everything_that_is_looked_at_can_be_sketched() -> None:
    assert all(look.kind == "points" or isinstance(look, Additive) for look in SEES.values())


@pytest.mark.parametrize(("see", "name"), PAIRS)
def test_a_view_equals_a_view_from_the_full_data(see: str, name: str, store: ClassStore) -> None:
    by, looks = DISCREPANCIES[name](), SEES[see]
    source, syn = _take(store, by, looks), store.batch([0, 9, 10, 20, 1])
    match, everything = Match(looks, by), store.batch(torch.arange(len(store)))
    for step in range(4):
        view = source.view(step)
        real = looks(view.net, view.augment(everything), differentiable=False)
        shown = looks(view.net, view.augment(syn), differentiable=False)
        scales = [None] * len(real) if not source.scales else [scale[view.pair] for scale in source.scales]
        (owner, w), (syn_owner, syn_w) = rows_of(looks, everything), rows_of(looks, syn)
        expected = sum(
            float(by(by.summarise(points, owner, 3, w, scale=scale), mine, syn_owner, syn_w))
            for points, mine, scale in zip(real, shown, scales, strict=True)
        )
        # a cosine near 1 is rounded before it is taken from 1, once for each of a layer's units
        near = 1e-5 if isinstance(by, Cosine) else 1e-9
        assert float(match(view, syn)) == pytest.approx(expected, rel=1e-4, abs=near)


@pytest.mark.parametrize("see", [name for name, look in SEES.items() if look.kind == "parameters"])
def test_the_gradient_of_a_step_is_that_from_the_full_data(see: str, store: ClassStore) -> None:
    looks, by = SEES[see], Mean()
    view, everything = _take(store, by, looks).view(1), store.batch(torch.arange(len(store)))
    syn = store.batch([0, 9, 10, 20, 1])
    syn = syn._replace(x=(syn.x + 0.1).requires_grad_())
    real = looks(view.net, view.augment(everything), differentiable=False)
    shown = looks(view.net, view.augment(syn), differentiable=True)
    (owner, w), (syn_owner, syn_w) = rows_of(looks, everything), rows_of(looks, syn)
    sides = zip(real, shown, strict=True)
    expected = torch.stack([by(by.summarise(a, owner, 3, w), b, syn_owner, syn_w) for a, b in sides]).sum()
    ours, theirs = (torch.autograd.grad(loss, syn.x)[0] for loss in (Match(looks, by)(view, syn), expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def _same(one: Sketch, other: Sketch) -> None:
    assert torch.equal(one.counts, other.counts)
    for a, b in zip(one.sums, other.sums, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("see", "name"), ONCE)
def test_merge_is_the_sketch_of_the_union(see: str, name: str, store: ClassStore) -> None:
    by, look = DISCREPANCIES[name](), SEES[see]
    whole = _take(store, by, look)
    # Class 1 is in both parts, the others each in one.
    parts = [_take(store.subset(rows), by, look, like=whole) for rows in (range(11), range(11, 27))]
    _same(parts[0].merge(parts[1]), whole)
    assert len(parts[0].merge(parts[1]).manifest.history) == 2


@pytest.mark.parametrize(("see", "name"), ONCE)
def test_subtract_is_the_sketch_of_the_rest(see: str, name: str, store: ClassStore) -> None:
    by, look = DISCREPANCIES[name](), SEES[see]
    whole = _take(store, by, look)
    forgotten, rest = (
        _take(store.subset(rows), by, look, like=whole) for rows in (range(4, 20), [*range(4), *range(20, 27)])
    )
    _same(whole.subtract(forgotten), rest)
    empty = whole.subtract(whole)
    assert all(bool((sums == 0).all()) for sums in empty.sums)
    with pytest.raises(InputError, match="must be part of it"):
        forgotten.subtract(whole)


@pytest.mark.parametrize(("see", "name"), ONCE)
def test_the_file_gives_back_the_sketch(see: str, name: str, store: ClassStore, tmp_path: Path) -> None:
    by, look, file = DISCREPANCIES[name](), SEES[see], tmp_path / "real.safetensors"
    source = _take(store, by, look)
    source.save(file)
    back = Sketch.load(file)
    assert back.manifest == source.manifest
    assert all(torch.equal(a, b) for a, b in zip(source.sums, back.sums, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(source.scales, back.scales, strict=True))
    syn, match = store.batch([0, 12, 25]), Match(look, by)
    assert [float(match(back.view(s), syn)) for s in range(3)] == [float(match(source.view(s), syn)) for s in range(3)]


@pytest.mark.parametrize("name", [name for name in DISCREPANCIES if name not in ADDITIVE])
def test_what_needs_points_refuses_a_sketch(name: str, store: ClassStore) -> None:
    by = DISCREPANCIES[name]()
    with pytest.raises(InputError, match="rff"):
        _take(store, by)
    view, syn = _take(store, DISCREPANCIES["mean"]()).view(0), store.batch([0])
    with pytest.raises(InputError, match="rff"):
        Match(Features(), by)(view, syn)
