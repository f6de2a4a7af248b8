"""Laws of the sketch for every additive discrepancy: what it says of the real set is what the real set says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentdc.data.augment import DSA
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES, Discrepancy
from latentdc.errors import InputError
from latentdc.networks import FixedPool
from latentdc.objectives import Match
from latentdc.representations import Features, Representation
from latentdc.sketch import Sketch, sketch

Store = Callable[..., ClassStore]
ADDITIVE = [name for name, part in DISCREPANCIES.items() if part.sketchable]
SEES = {"features": Features(), "all": Features(layer="all"), "projected": Features(project=6)}


@pytest.fixture(scope="module")
def store(make_store: Store) -> ClassStore:
    return make_store(9, size=16)


def _take(store: ClassStore, by: Discrepancy, see: Representation | None = None, **options: object) -> Sketch:
    pool = FixedPool("convnet", store.spec, 0, 2, width=4)
    options = {"num_pairs": 3, "batch_size": 7, "progress": False, **options}
    return sketch(store, pool, DSA(), see or Features(), by, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("see", SEES)
@pytest.mark.parametrize("name", ADDITIVE)
def test_a_view_equals_a_view_from_the_full_data(name: str, see: str, store: ClassStore) -> None:
    by, looks = DISCREPANCIES[name](), SEES[see]
    source, syn = _take(store, by, looks), store.batch([0, 9, 10, 20, 1])
    match, everything = Match(looks, by), store.batch(torch.arange(len(store)))
    for step in range(4):
        view = source.view(step)
        real = looks(view.net, view.augment(everything), differentiable=False)
        shown = looks(view.net, view.augment(syn), differentiable=False)
        scales = [None] * len(real) if not source.scales else [scale[view.pair] for scale in source.scales]
        expected = sum(
            float(by(by.summarise(points, everything.owner, 3, scale=scale), mine, syn.owner))
            for points, mine, scale in zip(real, shown, scales, strict=True)
        )
        # a cosine near 1 is rounded before it is taken from 1
        assert float(match(view, syn)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def _same(one: Sketch, other: Sketch) -> None:
    assert torch.equal(one.counts, other.counts)
    for a, b in zip(one.sums, other.sums, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ADDITIVE)
def test_merge_is_the_sketch_of_the_union(name: str, store: ClassStore) -> None:
    by = DISCREPANCIES[name]()
    whole = _take(store, by)
    parts = [_take(store.subset(rows), by, like=whole) for rows in (range(11), range(11, 27))]
    _same(parts[0].merge(parts[1]), whole)
    assert len(parts[0].merge(parts[1]).manifest.history) == 2


@pytest.mark.parametrize("name", ADDITIVE)
def test_subtract_is_the_sketch_of_the_rest(name: str, store: ClassStore) -> None:
    by = DISCREPANCIES[name]()
    whole = _take(store, by)
    forgotten, rest = (
        _take(store.subset(rows), by, like=whole) for rows in (range(4, 20), [*range(4), *range(20, 27)])
    )
    _same(whole.subtract(forgotten), rest)
    empty = whole.subtract(whole)
    assert all(bool((sums == 0).all()) for sums in empty.sums)
    with pytest.raises(InputError, match="must be part of it"):
        forgotten.subtract(whole)


@pytest.mark.parametrize("name", ADDITIVE)
def test_the_file_gives_back_the_sketch(name: str, store: ClassStore, tmp_path: Path) -> None:
    by, file = DISCREPANCIES[name](), tmp_path / "real.safetensors"
    source = _take(store, by)
    source.save(file)
    back = Sketch.load(file)
    assert back.manifest == source.manifest
    assert all(torch.equal(a, b) for a, b in zip(source.sums, back.sums, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(source.scales, back.scales, strict=True))
    syn, match = store.batch([0, 12, 25]), Match(Features(), by)
    assert [float(match(back.view(s), syn)) for s in range(3)] == [float(match(source.view(s), syn)) for s in range(3)]


@pytest.mark.parametrize("name", [name for name in DISCREPANCIES if name not in ADDITIVE])
def test_what_needs_points_refuses_a_sketch(name: str, store: ClassStore) -> None:
    by = DISCREPANCIES[name]()
    with pytest.raises(InputError, match="rff"):
        _take(store, by)
    view, syn = _take(store, DISCREPANCIES["mean"]()).view(0), store.batch([0])
    with pytest.raises(InputError, match="rff"):
        Match(Features(), by)(view, syn)
