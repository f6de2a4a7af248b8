"""Landmarks: exact where each point is one, near otherwise by a bound, and merged as weighted points."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentdc.data.augment import DSA
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES, Discrepancy, Energy, Mean, Mmd, Sinkhorn, Sliced
from latentdc.errors import BundleError, InputError
from latentdc.networks import FixedPool
from latentdc.objectives import Match
from latentdc.representations import Features, Gradients, Representation
from latentdc.sketch import Sketch, make, sketch
from latentdc.sketch.kept import Kept
from latentdc.sketch.landmarks import landmarks
from latentdc.source import Look

Store = Callable[..., ClassStore]
OF_POINTS = [name for name, part in DISCREPANCIES.items() if not part.sketchable]


@pytest.fixture(scope="module")
def store(make_store: Store) -> ClassStore:
    return make_store(9)


def _take(
    store: ClassStore, by: Discrepancy, num: int | None, see: Representation | None = None, **more: object
) -> Sketch:
    pool = FixedPool("convnet", store.spec, 0, 2, width=4)
    options = {"batch_size": 14, "progress": False, "landmarks": num, **more}
    return sketch(store, pool, DSA(), see or Features(), by, **options)  # type: ignore[arg-type]


def _from_all(store: ClassStore, source: Sketch, see: Representation, by: Discrepancy, step: int) -> float:
    view, real, syn = source.view(step), store.batch(torch.arange(len(store))), store.batch([0, 9, 1, 20, 21])
    sides = [see(view.net, view.augment(batch), differentiable=False) for batch in (real, syn)]
    return sum(float(by(by.summarise(a, real.owner, 3), b, syn.owner)) for a, b in zip(*sides, strict=True))


@pytest.mark.parametrize("layer", ["last", "all"])
@pytest.mark.parametrize("name", OF_POINTS)
def test_as_many_as_there_are_points_are_exact(name: str, layer: str, store: ClassStore) -> None:
    by, see, syn = DISCREPANCIES[name](), Features(layer=layer), store.batch([0, 9, 1, 20, 21])
    for num in (9, 100):
        source = _take(store, by, num, see)
        assert source.held.masses[0].shape == (2, 3, 9)
        for step in range(2):
            expected = _from_all(store, source, see, by, step)
            assert float(Match(see, by)(source.view(step), syn)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", OF_POINTS)
def test_a_step_is_against_the_weighted_points(name: str, store: ClassStore) -> None:
    by, source = DISCREPANCIES[name](), _take(store, DISCREPANCIES[name](), 3)
    view, syn = source.view(0), store.batch([0, 9, 1, 20, 21])
    sums, masses = source.sums[0][view.pair], source.held.masses[0][view.pair]
    assert masses.sum(1).tolist() == [9, 9, 9]
    points, owner = (sums / masses[..., None]).flatten(0, 1).float(), torch.arange(3).repeat_interleave(3)
    scale = source.scales[0][view.pair] if source.scales else None
    real = by.summarise(points, owner, 3, masses.flatten(), scale=scale)
    shown = Features()(view.net, view.augment(syn), differentiable=False)[0]
    expected = float(by(real, shown, syn.owner))
    assert float(Match(Features(), by)(view, syn)) == pytest.approx(expected, rel=1e-4)


def test_kernel_lengths_are_those_of_the_points_and_not_of_their_landmarks(store: ClassStore) -> None:
    assert torch.equal(_take(store, Mmd(), 2).scales[0], _take(store, Mmd(), 9).scales[0])
    assert _take(store, Energy(), 2).scales == ()


def test_landmarks_come_nearer_by_the_bound() -> None:
    """W₂, sliced W₂, the energy distance and the root of mmd, between synthetic points and real ones or landmarks."""
    rng = torch.Generator().manual_seed(0)
    real, syn = torch.randn(40, 3, generator=rng).double(), torch.randn(5, 3, generator=rng).double() + 0.5
    zero, zeros = torch.zeros(40, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)
    b = float(Mmd().lengths(real, zero, 1))  # type: ignore[arg-type]
    measures: list[tuple[Discrepancy, Callable[[float], float], float]] = [
        (Sinkhorn(blur=0), lambda value: math.sqrt(2 * value), 1.0),
        (Sliced(num=64), math.sqrt, 1.0),
        (Energy(), float, 4.0),
        (Mmd(bandwidth=b), math.sqrt, math.sqrt(15.5 / b)),
    ]
    radii = []
    for num in (1, 4, 12, 40):
        sums, masses = landmarks(real, num, torch.Generator().manual_seed(1))
        points, owner = sums / masses[:, None], torch.zeros(num, dtype=torch.int64)
        torch.testing.assert_close((masses[:, None] * points).sum(0), real.sum(0))
        radii.append(float(torch.cdist(real, points).amin(1).square().mean().sqrt()))
        for by, root, factor in measures:
            exact = root(float(by(by.summarise(real, zero, 1), syn, zeros)))
            near = root(float(by(by.summarise(points, owner, 1, masses), syn, zeros)))
            assert abs(near - exact) <= factor * radii[-1] + 1e-6, (type(by).__name__, num)
    assert radii[0] > 2 * radii[2] > 0
    assert radii[3] < 1e-6


def test_equal_points_share_a_landmark() -> None:
    points = torch.eye(2).repeat(4, 1)
    sums, masses = landmarks(points, 3, torch.Generator().manual_seed(0))
    assert sorted(masses.tolist()) == [0, 4, 4]
    assert float(sums[masses == 0].abs().sum()) == 0
    torch.testing.assert_close(sums[masses > 0].sum(0), torch.tensor([4.0, 4.0]))


def test_classes_smaller_than_the_number_are_kept_whole(store: ClassStore) -> None:
    few = store.subset([0, 1, *range(9, 18)])  # 2, 9 and no images
    source = _take(few, Energy(), 4)
    assert (source.held.masses[0] > 0).sum(2).tolist() == [[2, 4, 0]] * 2
    assert source.counts.tolist() == [[2, 9, 0]] * 2
    with pytest.raises(InputError, match=r"classes \[2\] have synthetic rows but no real ones"):
        Match(Features(), Energy())(source.view(0), store.batch([0, 20]))


@pytest.mark.parametrize("name", ["energy", "mmd"])
def test_merged_they_are_the_points_of_both(name: str, store: ClassStore, tmp_path: Path) -> None:
    by, syn = DISCREPANCIES[name](), store.batch([0, 9, 1, 20, 21])
    whole = _take(store, by, 9)
    parts = [_take(store.subset(rows), by, 9, like=whole) for rows in (range(11), range(11, 27))]
    both, match = parts[0].merge(parts[1]), Match(Features(), by)
    assert torch.equal(both.counts, whole.counts)
    assert (both.manifest.landmarks, both.manifest.version) == (18, 2)
    for step in range(2):
        assert float(match(both.view(step), syn)) == pytest.approx(float(match(whole.view(step), syn)), rel=1e-5)
    both.save(tmp_path / "both.safetensors")
    back = Sketch.load(tmp_path / "both.safetensors")
    assert back.manifest == both.manifest
    assert float(match(back.view(0), syn)) == float(match(both.view(0), syn))
    third = _take(store.subset(range(3)), by, 2, like=whole)
    assert both.held.combined(third.held, 1).masses[0].shape[2] == both.held.masses[0].shape[2] + 2


def test_what_they_cannot_do_is_refused(store: ClassStore) -> None:
    source = _take(store, Energy(), 3)
    with pytest.raises(InputError, match=r"cannot be subtracted: .* Merge sketches of the parts that remain"):
        source.subtract(_take(store.subset(range(5)), Energy(), 3))
    with pytest.raises(InputError, match="landmarks = 0: give at least 1"):
        _take(store, Energy(), 0)
    with pytest.raises(
        InputError, match=r'landmarks = 3: of "features" by "mean" a sketch holds sums, which are exact'
    ):
        _take(store, Mean(), 3)
    with pytest.raises(InputError, match=r'landmarks = 3: of "gradients" by "mean" a sketch holds sums'):
        _take(store, Mean(), 3, Gradients())
    with pytest.raises(InputError, match=r"source\.landmarks = 100"):
        _take(store, Energy(), None)
    with pytest.raises(InputError, match=r"by\.part"):
        Match(Features(), Sliced())(source.view(0), store.batch([0]))


def test_only_files_with_landmarks_are_of_a_new_version(store: ClassStore) -> None:
    plain, few = _take(store, Mean(), None).manifest, _take(store, Energy(), 3).manifest
    assert (plain.version, few.version) == (1, 2)
    assert "landmarks" not in json.loads(plain.dumps())
    assert json.loads(few.dumps())["landmarks"] == 3


def test_an_interrupted_one_goes_on_and_another_does_not(
    store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, straight = tmp_path / "real.safetensors", _take(store, Energy(), 3)
    monkeypatch.setattr(make.shutil, "rmtree", lambda *_, **__: None)  # As if cut off just before the end.
    _take(store, Energy(), 3, out=out)
    monkeypatch.undo()
    with pytest.raises(BundleError, match="another sketch"):
        _take(store, Energy(), 4, out=out)
    again = _take(store, Energy(), 3, out=out)
    for a, b in zip(again.held.tensors().values(), straight.held.tensors().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OF_POINTS)
def test_a_pair_is_summarised_once_for_the_same_classes(name: str, store: ClassStore) -> None:
    by = Sliced(num=1) if name == "sliced" else DISCREPANCIES[name]()  # more lines than coordinates would not fit
    source = _take(store, by, 3)
    look = [Look(Features(), by)]
    first, other = source.view(0).real(look, [0, 1]), source.view(1).real(look, [0, 1])
    again = source.view(2).real(look, [0, 1])  # of two pairs the walk comes back to either in any two steps
    assert {id(each[0][0]) for each in (first, other)} >= {id(again[0][0])}
    assert source.view(0).real(look, [1, 2])[0][0] is not first[0][0]
    assert bool((source.view(0).real(look, [2])[0][0].counts[:2] == 0).all())
    assert source.to("cpu").view(0).real(look, [0, 1])[0][0] is not first[0][0]


def test_summaries_are_kept_while_there_is_room(store: ClassStore) -> None:
    source, see, by = _take(store, Energy(), 3), Features(), Energy()
    kept = Kept(source.held)
    assert kept.room == 2 * source.num_bytes
    kept.room = 1
    assert kept.summaries(0, 0, see, by, [0])[0] is not kept.summaries(0, 0, see, by, [0])[0]
    assert kept.room == 1
    plain = Kept(_take(store, Mean(), None).held)
    plain.summaries(0, 0, see, Mean(), [0])
    assert plain.room == 2 * plain.held.num_bytes, "sums are looked up, not copied"
