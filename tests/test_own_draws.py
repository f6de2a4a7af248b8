"""What is drawn apart: pairs and subsets of a sketch, starts of classes, axes of a transform, sides of a rectangle."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from latentdc.data.augment import DSA, NoAugment, per_image
from latentdc.data.cut_mix import CutMix
from latentdc.data.store import ClassStore, from_arrays
from latentdc.discrepancies import Energy, Mean
from latentdc.initialise import initialise, start_images
from latentdc.networks import FixedPool
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.representations import Features
from latentdc.sketch import Sketch, sketch
from latentdc.sketch.kept import Kept
from latentdc.types import DataSpec, Observation


def _pixels(store: ClassStore) -> PixelsDecoder:
    return PixelsDecoder(store.spec.image_shape, store.spec.mean, store.spec.std)


def _taken(store: ClassStore, augment: DSA | NoAugment, num_pairs: int, *, seed: int = 0, **options: int) -> Sketch:
    pool = FixedPool("mlp", store.spec, 0, 2, width=8)
    return sketch(store, pool, augment, Features(), Mean(), num_pairs=num_pairs, seed=seed, progress=False, **options)


def test_more_pairs_than_networks_begin_again_with_the_first_under_other_draws(tiny_store: ClassStore) -> None:
    augment = DSA("rotate")
    source, pool = _taken(tiny_store, augment, 5), FixedPool("mlp", tiny_store.spec, 0, 2, width=8)
    everything = tiny_store.batch(torch.arange(36))
    for pair in range(5):
        shown = pool.network(pair % 2).observe(augment.apply(everything.x, source.draws(pair), tiny_store.spec)).last
        torch.testing.assert_close(source.sums[0][pair].float(), shown.detach().view(3, 12, -1).sum(1))
    angles = [float(source.draws(pair)[0].params["degrees"]) for pair in range(5)]
    assert len(set(angles)) == 5
    others = _taken(tiny_store, augment, 5, seed=1)
    assert not set(angles) & {float(others.draws(pair)[0].params["degrees"]) for pair in range(5)}
    walks = [[each.pair(step) for step in range(20)] for each in (source, others)]
    assert walks[0] != walks[1]


def _seen(source: Sketch, store: ClassStore, pair: int, cls: int) -> tuple[int, ...]:
    """Which two images of a class a pair summed."""
    net = FixedPool("mlp", store.spec, 0, 2, width=8).network(pair % 2)
    shown = net.observe(store.of_class(cls).float() / 255).last.detach().double()
    chosen = list(combinations(range(len(shown)), 2))
    gaps = torch.stack([(shown[list(each)].sum(0) - source.sums[0][pair, cls]).norm() for each in chosen])
    assert float(gaps.min()) < 1e-4
    return chosen[int(gaps.argmin())]


def test_each_pair_sees_images_of_its_own_and_of_each_class_others(tiny_store: ClassStore) -> None:
    source = _taken(tiny_store, NoAugment(), 4, images_per_pair=2)
    seen = [[_seen(source, tiny_store, pair, cls) for cls in range(3)] for pair in range(4)]
    for cls in range(3):
        assert len({of_pair[cls] for of_pair in seen}) > 2
    for of_pair in seen:
        assert len(set(of_pair)) > 1


def test_what_is_drawn_beside_a_sketch_is_of_the_step_and_the_class(tiny_store: ClassStore) -> None:
    source = _taken(tiny_store, NoAugment(), 1)  # Every step sees the same pair.
    drawn = [source.view(step).rng(what, cls).initial_seed() for step in (0, 1) for what in "ab" for cls in (0, 1)]
    assert len(set(drawn)) == 8
    assert source.view(1).rng("b", 1).initial_seed() == drawn[-1]


def test_what_is_kept_takes_its_room_until_there_is_none(tiny_store: ClassStore) -> None:
    pool, by = FixedPool("mlp", tiny_store.spec, 0, 2, width=8), Energy()
    source = sketch(tiny_store, pool, NoAugment(), Features(), by, landmarks=3, progress=False)
    kept = Kept(source.held)
    first = kept.summaries(0, 0, Features(), by, [0, 1, 2])
    tensors = [each for each in vars(first[0]).values() if isinstance(each, Tensor)]
    size = sum(each.numel() * each.element_size() for each in tensors)
    assert kept.room == 2 * source.num_bytes - size
    kept.room = size  # For one more, which is not the third.
    assert kept.summaries(0, 1, Features(), by, [0, 1, 2])[0] is kept.summaries(0, 1, Features(), by, [0, 1, 2])[0]
    assert kept.summaries(0, 1, Features(), by, [2, 0, 1])[0] is not kept.summaries(0, 1, Features(), by, [2, 0, 1])[0]
    assert kept.summaries(0, 0, Features(), by, [0, 1, 2])[0] is first[0]


def test_no_two_classes_start_from_the_same_noise_or_the_same_places(tiny_store: ClassStore) -> None:
    noise = initialise("prior", _pixels(tiny_store), (2, 2, 2), seed=0).latents()["x"].detach()
    assert len(torch.unique(noise, dim=0)) == 6
    real = start_images("real", _pixels(tiny_store), (4, 4, 4), seed=0, store=tiny_store)
    assert real is not None
    known = tiny_store.batch(torch.arange(36)).x
    places = [int((known == x).flatten(1).all(1).nonzero()) for x in real.x]
    assert [place // 12 for place in places] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({tuple(place % 12 for place in places[first : first + 4]) for first in (0, 4, 8)}) == 3


def test_a_row_of_tiles_is_of_one_class_and_holds_no_image_twice(tiny_store: ClassStore) -> None:
    tiles = TilesFormation(2)
    real = start_images("real", _pixels(tiny_store), (1, 3, 2), seed=0, store=tiny_store, formation=tiles)
    assert real is not None
    assert real.owner.tolist() == [0, 1, 1, 1, 2, 2]
    assert torch.equal(real.y, torch.eye(3)[real.owner])
    small = nn.functional.interpolate(tiny_store.batch(torch.arange(36)).x, size=(4, 4), mode="area")
    parts = real.x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(24, 1, 4, 4)
    gaps, places = (parts[:, None] - small).abs().flatten(2).amax(2).min(1)
    assert float(gaps.max()) < 1e-6
    assert torch.equal(places // 12, real.owner.repeat_interleave(4))
    assert len(set(places.tolist())) == 24


class Corner(nn.Module):
    """A network that sees nothing of an image but its first pixel."""

    def observe(self, x: Tensor) -> Observation:
        first = x[:, 0, 0, :1]
        return Observation(first, (first,))


def test_medoids_are_of_what_the_network_sees(tiny_store: ClassStore) -> None:
    """Of each class one image in seven has a bright corner, which in pixels is next to nothing."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (14, 1, 8, 8), generator=rng, dtype=torch.uint8)
    images[:, 0, 0, 0], bright = 0, [3, 12]
    images[bright, 0, 0, 0] = 255
    store = from_arrays(images, torch.arange(2).repeat_interleave(7), ["a", "b"], name="corners")
    assert store.spec.image_shape == tiny_store.spec.image_shape
    real = start_images("medoids", _pixels(store), (2, 2), seed=0, store=store, net=Corner())  # type: ignore[arg-type]
    assert real is not None
    assert real.owner.tolist() == [0, 0, 1, 1]
    assert real.x[:, 0, 0, 0].tolist() == [0, 1, 0, 1], "the largest cluster first"
    assert torch.equal(real.x[[1, 3]], store.batch(bright).x)


COLOUR = ("brightness", "saturation", "contrast")
APART = [
    ("crop", "down", "right"),
    ("cutout", "row", "col"),
    ("scale", "across", "down"),
    *(("color", *each) for each in combinations(COLOUR, 2)),
]


@pytest.mark.parametrize(("group", "one", "other"), APART)
def test_parameters_of_a_transform_are_drawn_apart(group: str, one: str, other: str) -> None:
    (draw,) = DSA(group).draw(2000, (1, 64, 64), torch.Generator().manual_seed(0), shared=False)
    both = torch.stack([draw.params[one].double(), draw.params[other].double()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.1


def test_height_and_width_have_shifts_and_holes_of_their_own() -> None:
    """Of an odd side a hole's centre lies on one of its pixels, of an even one also just behind the last."""
    for (tall, wide), shifts, holes, ends in (
        ((16, 40), (2, 5), (8, 20), (16, 40)),
        ((9, 14), (1, 2), (5, 7), (8, 13)),
    ):
        crop, cutout = (
            DSA(group).draw(1500, (1, tall, wide), torch.Generator().manual_seed(0), shared=False)[0].params
            for group in ("crop", "cutout")
        )
        assert (int(crop["down"].max()), int(crop["right"].max())) == shifts
        assert (int(crop["down"].min()), int(crop["right"].min())) == (-shifts[0], -shifts[1])
        assert (int(cutout["height"].unique()), int(cutout["width"].unique())) == holes
        assert (int(cutout["row"].max()), int(cutout["col"].max())) == ends
        assert (int(cutout["row"].min()), int(cutout["col"].min())) == (0, 0)


@pytest.mark.parametrize("group", ["crop", "flip", "color"])
def test_every_image_of_a_trainers_batch_has_a_draw_of_its_own(group: str) -> None:
    spec = DataSpec((1, 16, 16), ("a", "b"), (0.3,), (0.2,))
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    shown = per_image(DSA(group), spec)(image.expand(20, -1, -1, -1), torch.Generator().manual_seed(0))
    assert len(torch.unique(shown, dim=0)) >= {"crop": 9, "flip": 2, "color": 20}[group]


@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_a_rectangle_lies_anywhere_and_has_its_share_of_the_image(probability: float) -> None:
    """Sides of √v of the image's with v uniform, cut off at the border: the mean share is ∫ (√v − v/4)² dv.

    Whether to mix at all is drawn apart from it, or rectangles would be large ones where it is seldom.
    """
    x, mix = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 40, 80), CutMix(probability)
    shares, centres = [], []
    for seed in range(1500):
        mixed, _ = mix(x, torch.eye(3), torch.Generator().manual_seed(seed))
        rows, cols = ((mixed != x).any(1).any(0).any(axis).nonzero().flatten() for axis in (1, 0))
        if len(rows):  # Not where nothing was mixed, or every image was exchanged with itself.
            shares.append(len(rows) * len(cols) / 3200)
            centres.append((float(rows.double().mean()) / 40, float(cols.double().mean()) / 80))
    assert sum(shares) / len(shares) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, rel=0.1)
    across = torch.tensor(centres, dtype=torch.float64).T
    assert abs(float(torch.corrcoef(across)[0, 1])) < 0.1
    assert across.mean(1).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
