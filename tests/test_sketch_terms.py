"""A sketch for an objective of several terms: each is what a sketch for it alone would be, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.data.augment import DSA
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Cosine, Energy, Mean, Mmd, RandomFourier
from latentdc.errors import BundleError, InputError
from latentdc.networks import FixedPool
from latentdc.networks.convnet import ConvNet
from latentdc.objectives import Match
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import as_sketched, build, load_recipe
from latentdc.representations import Attention, Features, Gradients
from latentdc.sketch import Sketch, make, sketch, sketch_bytes

LOOKS = (
    (Features(), Mean()),
    (Gradients(), Cosine()),
    (Features(), Energy()),
    (Features(), RandomFourier(num=8)),
    (Attention(), Mmd()),
)
"""Sums of points, of parameters, landmarks, sums that are taken with kernel lengths, and landmarks beside others."""
SUMS, POINTS = (LOOKS[0], LOOKS[1], LOOKS[3]), (LOOKS[2], LOOKS[4])
TINY = ("source.width=4", "source.num_pairs=2", "source.kind=sketch", "precision=fp32")


def take(store: ClassStore, *looks: Any, **options: Any) -> Sketch:
    pool = FixedPool("convnet", store.spec, seed=1, num=2, width=4)
    given: dict[str, Any] = {"seed": 3, "batch_size": 8, "progress": False, "plus": looks[1:], **options}
    return sketch(store, pool, DSA(), *looks[0], **given)


def test_every_term_is_as_if_it_were_alone(tiny_store: ClassStore, tmp_path: Path) -> None:
    whole = take(tiny_store, *LOOKS, landmarks=4)
    whole.save(tmp_path / "s.safetensors")
    loaded = Sketch.load(tmp_path / "s.safetensors")
    assert (loaded.manifest, loaded.num_bytes) == (whole.manifest, whole.num_bytes)
    syn = tiny_store.batch([0, 1, 14, 30])
    for look in LOOKS:
        alone = take(tiny_store, look, landmarks=4 if look in POINTS else None)
        wanted = [Match(*look)(alone.view(step), syn) for step in range(2)]
        for source in (whole, loaded):
            assert torch.equal(
                torch.stack([Match(*look)(source.view(step), syn) for step in range(2)]), torch.stack(wanted)
            )
    assert len({float(Match(*look)(whole.view(0), syn)) for look in LOOKS}) == len(LOOKS), "the terms tell apart"


def test_terms_of_points_share_their_pass(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, look = [], ConvNet.observe
    monkeypatch.setattr(ConvNet, "observe", lambda net, x: (seen.append(len(x)), look(net, x))[1])

    def images(*looks: Any, landmarks: int | None = None) -> int:
        seen.clear()
        take(tiny_store, *looks, landmarks=landmarks)
        return sum(seen)

    features, attention = (Features(), Mean()), (Attention(), Mean())
    assert images(features, attention) == images(features) > 0
    lengths, points = (Features(), RandomFourier(num=8)), (Attention(), Energy())
    assert images(lengths, (Attention(), RandomFourier(num=8))) == images(lengths)
    assert images(points, (Features(), Energy()), landmarks=4) == images(points, landmarks=4)


def test_only_files_with_terms_are_of_the_new_version(tiny_store: ClassStore) -> None:
    one, several = take(tiny_store, LOOKS[0]).manifest, take(tiny_store, *SUMS).manifest
    assert (one.version, several.version) == (1, 3)
    assert "plus" not in json.loads(one.dumps())
    assert [term["by"]["part"] for term in json.loads(several.dumps())["plus"]] == ["Cosine", "RandomFourier"]


def test_parts_add_up_and_come_off_again(tiny_store: ClassStore) -> None:
    even, odd = tiny_store.subset(range(0, 36, 2)), tiny_store.subset(range(1, 36, 2))
    a = take(even, *SUMS)
    with pytest.raises(InputError, match="kernel lengths differ"):
        a.merge(take(odd, *SUMS))
    b = take(odd, *SUMS, like=a)
    both, syn = a.merge(b), tiny_store.batch([0, 1, 14, 30])
    whole = take(tiny_store, *SUMS, like=a)
    for look in SUMS:
        torch.testing.assert_close(Match(*look)(both.view(0), syn), Match(*look)(whole.view(0), syn))
        torch.testing.assert_close(Match(*look)(both.subtract(b).view(0), syn), Match(*look)(a.view(0), syn))
    with pytest.raises(InputError, match=r"plus = \[.*'Energy'.*\] instead of \[.*'Cosine'"):
        a.merge(take(odd, SUMS[0], POINTS[0], landmarks=2))
    c = take(even, *LOOKS, landmarks=4, like=None)
    with pytest.raises(InputError, match="a landmark stands for images of the whole set"):
        c.subtract(c)


def test_bytes_are_known_beforehand(tiny_store: ClassStore) -> None:
    pool = FixedPool("convnet", tiny_store.spec, 0, 2, width=4)
    told = sketch_bytes(pool, *LOOKS[0], tiny_store.counts, num_pairs=2, landmarks=5, plus=LOOKS[1:])
    assert told == take(tiny_store, *LOOKS, landmarks=5).num_bytes


def test_what_is_not_among_the_terms_is_refused(tiny_store: ClassStore) -> None:
    source, syn = take(tiny_store, *SUMS[:2]), tiny_store.batch([0])
    with pytest.raises(
        InputError,
        match=r"by\.part = 'RandomFourier' instead of 'Mean'.*; or .*see\.part = 'Features' instead of 'Gradients'",
    ):
        Match(Features(), RandomFourier(num=8))(source.view(0), syn)
    mixed = take(tiny_store, SUMS[0], LOOKS[2], landmarks=4)
    with pytest.raises(InputError, match="taken for another objective"):
        Match(*LOOKS[1])(mixed.view(0), syn)
    dm = load_recipe("dm", settings=("decoder=pixels",))
    assert build(as_sketched(dm, mixed), tiny_store.spec).recipe.source.landmarks is None
    assert mixed.merge(take(tiny_store.subset([0, 14]), SUMS[0], LOOKS[2], landmarks=4)).manifest.landmarks == 8
    with pytest.raises(InputError, match=r"source\.landmarks = 100"):
        take(tiny_store, LOOKS[0], LOOKS[2])
    with pytest.raises(InputError, match="sums, which are exact; leave landmarks out"):
        take(tiny_store, *SUMS, landmarks=3)


def test_an_interrupted_one_goes_on(tiny_store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, straight = tmp_path / "real.safetensors", take(tiny_store, *LOOKS, landmarks=3)
    monkeypatch.setattr(make.shutil, "rmtree", lambda *_, **__: None)  # As if cut off just before the end.
    take(tiny_store, *LOOKS, landmarks=3, out=out)
    monkeypatch.undo()
    with pytest.raises(BundleError, match="another sketch"):
        take(tiny_store, *LOOKS[:3], landmarks=3, out=out)
    monkeypatch.setattr(make.Embedder, "pair", None)  # nothing is computed again
    again = take(tiny_store, *LOOKS, landmarks=3, out=out)
    assert again.held.tensors().keys() == straight.held.tensors().keys()
    for name, each in again.held.tensors().items():
        assert torch.equal(each, straight.held.tensors()[name])


def test_attention_and_features_of_datadam_from_one_file(tiny_store: ClassStore, tmp_path: Path) -> None:
    pipe = CondensationPipeline()
    pipe.set_progress_bar_config(disable=True)
    made = pipe(tiny_store, "datadam", out=tmp_path / "b", steps=3, settings=TINY)
    (file,) = (tmp_path / "b.run").glob("sketch-*.safetensors")
    taken = Sketch.load(file)
    assert [look["see"]["part"] for look in taken.manifest.looks] == ["Attention", "Features"]
    again = pipe(tiny_store, "datadam", out=tmp_path / "c", steps=3, settings=("precision=fp32",), sketch=taken)
    assert torch.equal(made.bundle.bank.z["x"], again.bundle.bank.z["x"])
    alone = load_recipe("dm", settings=("decoder=pixels",))
    assert build(as_sketched(alone, taken), tiny_store.spec).plus == (), "its features alone will do for another recipe"
    assert taken.term(Features(), Mean()) == 1
    told = CliRunner().invoke(app, ["inspect", str(file)]).stdout
    assert told.index(f"{Attention.__name__} by Mean") < told.index("Features by Mean")
