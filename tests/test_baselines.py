"""Baselines: how many images and bytes they get, what they are drawn from, and that every seed redraws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latentdc.bundle import Bundle, load_bundle, save_bundle
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.evaluate.baselines import Candidate, candidates, equal_bytes_count, random_real, real_medoids, undistilled
from latentdc.evaluate.sets import exported, real_bytes_per_class, subject_of
from latentdc.latents import decode
from latentdc.portable.bank import LatentBank
from latentdc.portable.gan import GanDecoder
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.types import Batch, DataSpec

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def make_bundle(tiny_spec: DataSpec, tmp_path: Path) -> MakeBundle:
    def make(
        counts: tuple[int, ...] = (2, 2, 2),
        storage: str = "fp32",
        tiles: int | None = None,
        *,
        mean: tuple[float, ...] | None = None,
        latents_seed: int = 5,
    ) -> Bundle:
        decoder = PixelsDecoder(tiny_spec.image_shape, mean or tiny_spec.mean, tiny_spec.std)
        shape = decoder.latent_shapes["x"]
        latents = torch.randn(sum(counts), *shape, generator=torch.Generator().manual_seed(latents_seed))
        bank = LatentBank.of({"x": latents}, counts).quantise(storage)
        folder = tmp_path / f"bundle-{storage}-{tiles}-{'-'.join(map(str, counts))}-{mean}-{latents_seed}"
        formation = None if tiles is None else TilesFormation(tiles)
        save_bundle(folder, bank=bank, decoder=decoder, formation=formation, spec=tiny_spec, provenance={"seed": 0})
        return load_bundle(folder)

    return make


def test_export_clamps_and_rounds() -> None:
    x = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 7.0]).reshape(1, 1, 1, 7)
    out = exported(Batch(x, torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)))
    assert out.x.flatten().tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert out.x.dtype == torch.uint8


@pytest.mark.parametrize(
    ("bytes_per_class", "images"),
    [(776, 1), (788, 1), (792, 1), (840, 1), (900, 2), (68, 0), (395, 0), (400, 1), (3140, 4), (31364, 40)],
)
def test_equal_bytes_count(bytes_per_class: int, images: int) -> None:
    assert equal_bytes_count(bytes_per_class, (1, 28, 28)) == images
    if images:
        assert real_bytes_per_class(images, (1, 28, 28)) >= bytes_per_class - 0.1 * 784


def test_random_real(tiny_store: ClassStore) -> None:
    first, again, other = (random_real(tiny_store, (3, 1, 2), seed) for seed in (0, 0, 1))
    assert first.counts == (3, 1, 2)
    assert first.sha256() == again.sha256() != other.sha256()
    known = {image.numpy().tobytes() for image in tiny_store.images}
    assert {image.numpy().tobytes() for image in first.x} <= known
    assert len({image.numpy().tobytes() for image in first.x}) == 6
    assert torch.equal(first.y.argmax(1), first.owner)


def test_medoids_are_images_of_their_class(tiny_store: ClassStore) -> None:
    first, again = (real_medoids(tiny_store, (2, 3, 1), 0, width=8) for _ in range(2))
    assert first.counts == (2, 3, 1)
    assert first.sha256() == again.sha256() != real_medoids(tiny_store, (2, 3, 1), 1, width=8).sha256()
    for c in range(3):
        known = {image.numpy().tobytes() for image in tiny_store.of_class(c)}
        assert {image.numpy().tobytes() for image in first.x[first.owner == c]} <= known


def test_a_class_of_which_none_is_wanted_has_no_medoid(tiny_store: ClassStore) -> None:
    assert real_medoids(tiny_store, (2, 0, 1), 0, width=8).counts == (2, 0, 1)


@pytest.mark.parametrize("storage", ["fp32", "fp16", "int8", "int4"])
def test_undistilled_is_quantised_alike(make_bundle: MakeBundle, storage: str) -> None:
    bundle = make_bundle(storage=storage)
    first, again, other = (undistilled(bundle, seed) for seed in (0, 0, 1))
    assert first.sha256() == again.sha256() != other.sha256()
    assert first.counts == (2, 2, 2)
    distilled = exported(decode(bundle.decoder, bundle.bank))
    assert first.x.shape == distilled.x.shape
    assert not torch.equal(first.x, distilled.x)


def test_undistilled_shares_the_formation(make_bundle: MakeBundle) -> None:
    assert undistilled(make_bundle(tiles=2), 0).counts == (8, 8, 8)


def test_undistilled_is_known_by_what_it_is_drawn_from(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    def key(bundle: Bundle) -> str:
        rows, _ = candidates(subject_of(bundle, tiny_store), tiny_store, ("undistilled",))
        return rows[1].key

    ours = key(make_bundle())
    assert key(make_bundle(latents_seed=6)) == ours
    others = [
        make_bundle((2, 2, 3)),
        make_bundle(storage="int8"),
        make_bundle(tiles=2),
        make_bundle(tiles=4),
        make_bundle(mean=(0.25,)),
    ]
    assert len({ours, *map(key, others)}) == 6


def rows_of(bundle: Bundle, real: ClassStore) -> tuple[dict[tuple[str, str], tuple[float, float]], list[str]]:
    rows, notes = candidates(subject_of(bundle, real), real, ("random-real", "medoids", "undistilled"), width=8)
    for row in rows:
        assert row.draw(0).counts == row.counts
    return {(r.name, r.basis): (r.num_images / 3, r.bytes_per_class) for r in rows}, notes


def test_rows_of_an_fp32_pixel_bundle(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    rows, notes = rows_of(make_bundle((2, 2, 2)), tiny_store)
    assert rows == {
        ("bundle", "equal-images"): (2, 516),
        ("random-real", "equal-images"): (2, 132),
        ("random-real", "equal-bytes"): (8, 516),
        ("medoids", "equal-images"): (2, 132),
        ("medoids", "equal-bytes"): (8, 516),
        ("undistilled", "equal-images"): (2, 516),
    }
    assert notes == []


def test_rows_that_coincide_are_one(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    rows, _ = rows_of(make_bundle((2, 2, 2), "int8"), tiny_store)
    assert {basis for _, basis in rows} == {"equal-images"}


def test_rows_beyond_the_data_are_left_out_with_the_reason(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    rows, notes = rows_of(make_bundle((4, 4, 4)), tiny_store)
    assert ("random-real", "equal-bytes") not in rows
    assert any("random-real (equal-bytes) left out: fewer real images than 16" in note for note in notes)


def test_as_many_real_images_as_set_and_decoder_weigh(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    def last(bundle: Bundle, **changes: int) -> tuple[list[Candidate], list[str]]:
        subject = subject_of(bundle, tiny_store)
        subject = replace(subject, bytes={**subject.bytes, **changes})
        return candidates(subject, tiny_store, ("random-real-total",))

    bundle = make_bundle((2, 2, 3), "int8")
    rows, notes = last(bundle)
    assert len(rows) == 1
    assert notes == ["random-real-total left out: with its decoder the set weighs no more real images than without"]
    own = subject_of(bundle, tiny_store).bytes
    others = sum(own[line] for line in ("latents", "scales", "labels", "shared"))
    (_, row), notes = last(bundle, private_decoder=3 * (5 * 64 + 4) - others, public_decoder=10**6)
    assert (row.name, row.basis, row.counts, notes) == ("random-real-total", "equal-total", (5, 5, 5), [])
    assert row.draw(0).counts == (5, 5, 5)


def test_rows_with_a_formation(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    rows, notes = rows_of(make_bundle((1, 2, 3), tiles=2), tiny_store)
    assert rows["bundle", "equal-images"][0] == rows["undistilled", "equal-images"][0] == 8
    assert rows["random-real", "equal-images"][0] == 8
    assert any("2 rows per class are stored" in note for note in notes)


def test_unknown_baseline(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    subject = subject_of(make_bundle(), tiny_store)
    with pytest.raises(InputError, match='Did you mean "medoids"'):
        candidates(subject, tiny_store, ("medoid",))


def test_encoded_rows_are_real_images_through_the_decoder(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    subject = subject_of(make_bundle((2, 2, 2), "int8"), tiny_store)
    rows, notes = candidates(subject, tiny_store, ("encoded",))
    row = rows[1]
    assert (row.name, row.counts, row.bytes_per_class) == ("encoded", (2, 2, 2), subject.bytes_per_class)
    first = row.draw(0)
    nearest = (first.x[:, None].float() - tiny_store.images.float()).abs().flatten(2).amax(2).min(1)
    assert nearest.values.max() <= 3, "int8 keeps 127 steps either side of 0"
    assert torch.equal(tiny_store.labels[nearest.indices], first.owner)
    assert not torch.equal(first.x, row.draw(1).x)
    assert notes == []


def test_encoded_rows_that_cannot_be_are_left_out(
    make_bundle: MakeBundle, tiny_store: ClassStore, tmp_path: Path
) -> None:
    _, notes = candidates(subject_of(tiny_store, tiny_store), tiny_store, ("encoded", "undistilled"))
    assert [note.partition(" left out: ")[0] for note in notes] == ["undistilled", "encoded"]
    few = tiny_store.limit(1)
    _, notes = candidates(subject_of(make_bundle(), few), few, ("encoded",))
    assert notes == ["encoded left out: fewer real images than 2 in a class"]
    decoder = GanDecoder((1, 8, 8), 3, 4, (8, 4), 4).eval()
    bank = LatentBank.of(decoder.prior(torch.arange(3), torch.Generator()), (1, 1, 1))
    save_bundle(tmp_path / "g", bank=bank, decoder=decoder, spec=tiny_store.spec, provenance={"seed": 0})
    _, notes = candidates(subject_of(load_bundle(tmp_path / "g"), tiny_store), tiny_store, ("encoded",))
    assert notes == ["encoded left out: GanDecoder cannot encode images"]


@pytest.mark.parametrize("storage", ["fp32", "int8", "int4"])
def test_the_first_images_of_each_class_are_a_set(
    make_bundle: MakeBundle, tiny_store: ClassStore, storage: str
) -> None:
    bundle = make_bundle((3, 3, 3), storage)
    whole, first = subject_of(bundle, tiny_store), subject_of(bundle, tiny_store, images_per_class=2)
    kept = torch.tensor([0, 1, 3, 4, 6, 7])
    assert torch.equal(first.images.x, whole.images.x[kept])
    assert torch.equal(first.images.owner, whole.images.owner[kept])
    fixed = (whole.bytes["scales"] + whole.bytes["labels"]) / 3
    assert first.bytes_per_class - fixed == pytest.approx((whole.bytes_per_class - fixed) * 2 / 3)
    rows, _ = candidates(first, tiny_store, ("random-real", "undistilled"), width=8)
    assert {row.counts for row in rows if row.basis == "equal-images"} == {(2, 2, 2)}
    assert bundle.bank.counts == (3, 3, 3)


def test_no_more_images_than_there_are(make_bundle: MakeBundle, tiny_store: ClassStore) -> None:
    asked = r"images_per_class = 3 \(--images-per-class\): "
    with pytest.raises(InputError, match=asked + "the bundle stores 2"):
        subject_of(make_bundle((2, 2, 2)), tiny_store, images_per_class=3)
    with pytest.raises(InputError, match=asked + "this is no bundle"):
        subject_of(tiny_store, tiny_store, images_per_class=3)
