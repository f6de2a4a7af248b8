"""The sketch as an artefact: resuming, refusing what does not fit, the walk through its pairs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from latentdc.data.augment import DSA, NoAugment
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Mean, RandomFourier
from latentdc.errors import BundleError, InputError
from latentdc.networks import FixedPool, FreshPool, fingerprint
from latentdc.objectives import Match
from latentdc.representations import Features
from latentdc.sketch import Sketch, files, make, manifest, sketch
from latentdc.source import Look

Store = Callable[..., ClassStore]
SEE, BY = Features(), Mean()


@pytest.fixture(scope="module")
def store(make_store: Store) -> ClassStore:
    return make_store(9, size=16)


def _pool(store: ClassStore, *, seed: int = 0, num: int = 2, width: int = 4) -> FixedPool:
    return FixedPool("convnet", store.spec, seed, num, width=width)


def _take(store: ClassStore, **options: object) -> Sketch:
    given = {"pool": _pool(store), "augment": DSA(), "see": SEE, "by": BY, "num_pairs": 3, "progress": False, **options}
    return sketch(store, **given)  # type: ignore[arg-type]


def test_counts_bytes_and_walk(store: ClassStore) -> None:
    source = _take(store)
    assert source.counts.tolist() == [[9, 9, 9]] * 3
    assert source.num_bytes == 3 * 3 * (16 + 1) * 8
    assert _take(store, see=Features(project=4)).num_bytes == 3 * 3 * (4 + 1) * 8
    walk = [source.pair(step) for step in range(30)]
    assert all(sorted(walk[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))
    assert len({tuple(walk[i : i + 3]) for i in range(0, 30, 3)}) > 1
    assert walk == [_take(store).pair(step) for step in range(30)]


def test_network_and_draw_come_together(store: ClassStore) -> None:
    source, batch = _take(store), store.batch([0, 9, 18])
    for step in range(3):
        view = source.view(step)
        assert fingerprint(view.net) == source.manifest.fingerprints[view.pair % 2]
        expected = DSA().apply(batch.x, source.draws(view.pair), store.spec)
        assert torch.equal(view.augment(batch).x, expected)
    with pytest.raises(InputError, match="mini-batches"):
        source.view(0).batch([0])


def test_a_subset_per_pair(store: ClassStore) -> None:
    source, again = _take(store, images_per_pair=4), _take(store, images_per_pair=4)
    assert source.counts.tolist() == [[4, 4, 4]] * 3
    assert torch.equal(source.sums[0], again.sums[0])
    assert not torch.allclose(source.sums[0] / 4, _take(store).sums[0] / 9, rtol=1e-3)
    with pytest.raises(InputError, match="random subset"):
        source.subtract(again)


def test_batches_do_not_matter(store: ClassStore) -> None:
    one, other = _take(store, batch_size=5), _take(store, batch_size=100)
    torch.testing.assert_close(one.sums[0], other.sums[0], rtol=1e-6, atol=1e-4)


def test_bf16_is_near(store: ClassStore) -> None:
    exact, half = _take(store), _take(store, precision="bf16")
    assert half.manifest.precision == "bf16"
    gap = (half.sums[0] - exact.sums[0]).norm() / exact.sums[0].norm()
    assert 0 < float(gap) < 0.02


def test_an_interrupted_sketch_goes_on(store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, written = tmp_path / "real.safetensors", []

    def stops(file: Path, tensors: dict[str, torch.Tensor], text: str) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file)
        original(file, tensors, text)

    original = make.write
    monkeypatch.setattr(make, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        _take(store, by=RandomFourier(num=8), out=out)
    monkeypatch.undo()
    assert not out.exists()
    assert len(list((tmp_path / "real.safetensors.partial").iterdir())) == 2
    with pytest.raises(BundleError, match="another sketch"):
        _take(store, by=RandomFourier(num=8, seed=1), out=out)
    done = _take(store, by=RandomFourier(num=8), out=out)
    straight = _take(store, by=RandomFourier(num=8))
    assert torch.equal(done.sums[0], straight.sums[0])
    assert torch.equal(done.scales[0], straight.scales[0])
    assert [path.name for path in tmp_path.iterdir()] == ["real.safetensors"]


def test_what_was_left_under_other_kernel_lengths_is_not_taken_over(
    store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by, out = RandomFourier(num=8), tmp_path / "real.safetensors"
    one, other = (_take(store.subset(rows), by=by) for rows in (range(13), range(13, 27)))
    monkeypatch.setattr(make.shutil, "rmtree", lambda *_, **__: None)  # As if cut off just before the end.
    _take(store, by=by, like=one, out=out)
    monkeypatch.undo()
    with pytest.raises(BundleError, match="another sketch"):
        _take(store, by=by, like=other, out=out)
    assert torch.equal(_take(store, by=by, like=one, out=out).scales[0], one.scales[0])


def test_what_was_left_without_kernel_lengths_is_not_taken_over(
    store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by, out = RandomFourier(num=8), tmp_path / "real.safetensors"
    monkeypatch.setattr(make.shutil, "rmtree", lambda *_, **__: None)  # As if cut off just before the end.
    _take(store, out=out)
    monkeypatch.undo()
    with pytest.raises(BundleError, match="another sketch"):
        _take(store, by=by, like=_take(store, by=by), out=out)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"augment": NoAugment()}, "augment.part"),
        ({"augment": DSA(strategy="crop")}, "augment.strategy"),
        ({"see": Features(project=3)}, "see.project"),
        ({"by": RandomFourier(num=8)}, "by.part"),
        ({"num_pairs": 2}, "num_pairs"),
        ({"seed": 1}, "seed = 1 instead of 0"),
    ],
)
def test_sketches_taken_differently_do_not_merge(change: dict[str, object], reason: str, store: ClassStore) -> None:
    with pytest.raises(InputError, match=reason):
        _take(store).merge(_take(store, **change))


def test_other_networks_or_data_do_not_merge(store: ClassStore) -> None:
    mine = _take(store)
    with pytest.raises(InputError, match=r"pool\.seed = 3 instead of 0"):
        mine.merge(_take(store, pool=_pool(store, seed=3)))
    with pytest.raises(InputError, match=r"pool\.width = 8"):
        mine.merge(_take(store, pool=_pool(store, width=8)))
    for name, value in {"mean": (0.1,), "std": (0.9,), "class_names": ("x", "y", "z")}.items():
        spec = dataclasses.replace(store.spec, **{name: value})  # type: ignore[arg-type]
        other = ClassStore(store.images, store.labels, spec)
        with pytest.raises(InputError, match=rf"data\.{name}"):
            mine.merge(_take(other, pool=_pool(other)))


def test_other_kernel_lengths_do_not_merge(store: ClassStore) -> None:
    by = RandomFourier(num=8)
    one, other = (_take(store.subset(rows), by=by) for rows in (range(13), range(13, 27)))
    with pytest.raises(InputError, match="like"):
        one.merge(other)
    with pytest.raises(InputError, match="not taken alike"):
        _take(store, by=by, like=_take(store, by=by, seed=5))


def test_an_objective_it_was_not_taken_for_is_refused(store: ClassStore) -> None:
    view, syn = _take(store).view(0), store.batch([0])
    with pytest.raises(InputError, match=r"see\.project"):
        Match(Features(project=4), BY)(view, syn)
    with pytest.raises(InputError, match=r"by\.part"):
        Match(SEE, RandomFourier())(view, syn)


def test_a_network_that_is_rebuilt_differently_is_refused(store: ClassStore) -> None:
    source = _take(store)
    wrong = dataclasses.replace(source.manifest, fingerprints=["0" * 64] * 2)
    with pytest.raises(BundleError, match="rebuilt here"):
        Sketch(wrong, source.held).view(0)


def test_damaged_files_are_refused(store: ClassStore, tmp_path: Path) -> None:
    file = tmp_path / "real.safetensors"
    source = _take(store, out=file)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        Sketch.load(file)
    file.write_bytes(data[:100])
    with pytest.raises(BundleError, match=r"not a readable safetensors file: .*make the sketch again"):
        Sketch.load(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(BundleError, match="not a sketch"):
        Sketch.load(file)
    with pytest.raises(InputError, match="no such sketch"):
        Sketch.load(tmp_path / "absent")
    with pytest.raises(BundleError, match="version 9"):
        manifest.loads(dataclasses.replace(source.manifest, version=9).dumps())


@pytest.mark.parametrize("flip", [0x01, 0x03, 0x80])
def test_no_changed_byte_is_accepted(flip: int, tmp_path: Path) -> None:
    """Whatever byte of its file is changed, a sketch is refused or is itself."""
    path, sums = tmp_path / "real.safetensors", {"sums.0": torch.arange(2.0, dtype=torch.float64)}
    text = json.dumps({"seed": 0, "draws": [0.25]})
    files.write(path, sums, text)
    data, refused = path.read_bytes(), 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        try:
            tensors, told = files.read(path)
        except BundleError:
            refused += 1
        else:
            assert told == text, place
            assert torch.equal(tensors["sums.0"], sums["sums.0"])
    assert refused


def test_the_committed_sketch_is_what_it_was() -> None:
    source = Sketch.load(Path(__file__).resolve().parents[1] / "reports/fashion-mnist/sketch.safetensors")
    assert source.manifest.digest().startswith("dd1c63beeaa8b595")
    view = source.view(0)
    assert view.pair == 31
    ((real,),) = view.real([Look(Features(), BY)], [0])
    assert torch.equal(real.values, source.sums[0][31])


def test_wrong_requests_are_refused(store: ClassStore) -> None:
    with pytest.raises(InputError, match="num_pairs = 0"):
        _take(store, num_pairs=0)
    with pytest.raises(InputError, match="fixed pool"):
        _take(store, pool=FreshPool("convnet", store.spec, 0, width=4))


def test_a_checkpoint_of_another_sketch_is_refused(store: ClassStore) -> None:
    source = _take(store)
    source.load_state_dict(source.state_dict())
    with pytest.raises(BundleError, match="another sketch"):
        source.load_state_dict(_take(store, seed=1).state_dict())


def test_progress_goes_to_standard_error(store: ClassStore, capfd: pytest.CaptureFixture[str]) -> None:
    _take(store, progress=True)
    told = capfd.readouterr()
    assert told.out == ""
    assert "img/s" in told.err


@pytest.mark.slow
def test_compiled_networks_show_the_same(store: ClassStore) -> None:
    plain, compiled = (_take(store, pool=_pool(store, num=12), num_pairs=12, compile=c, batch_size=8) for c in (0, 1))
    torch.testing.assert_close(plain.sums[0], compiled.sums[0], rtol=1e-4, atol=1e-3)
