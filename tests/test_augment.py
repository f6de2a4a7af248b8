from __future__ import annotations

import dataclasses
import json

import kornia
import pytest
import torch

from latentdc.data import transforms
from latentdc.data.augment import DSA, AugmentDraw, NoAugment, dump, load
from latentdc.errors import BundleError, InputError
from latentdc.seeding import stream
from latentdc.types import DataSpec

SPEC = DataSpec((3, 12, 12), ("a", "b"), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
PLAIN = DataSpec((3, 12, 12), ("a", "b"), (0.0,) * 3, (1.0,) * 3)
GROUPS = DSA().groups


def images(num: int = 4, shape: tuple[int, ...] = (3, 12, 12)) -> torch.Tensor:
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_each_group_is_picked_equally_often_and_one_at_a_time():
    ops = [DSA().draw(2, (1, 8, 8), stream(0, "augment", i), shared=True) for i in range(1200)]
    assert all(len(draw) == 1 for draw in ops)
    counts = [sum(draw[0].op == group for draw in ops) for group in GROUPS]
    assert all(150 < count < 250 for count in counts)


def test_all_groups_are_applied_in_order_in_mode_m():
    draws = DSA(mode="M").draw(4, (3, 12, 12), stream(0, "augment"), shared=False)
    assert [draw.op for draw in draws] == list(GROUPS)
    x, step = images(), images()
    for draw in draws:
        step = DSA().apply(step, [draw], SPEC)
    torch.testing.assert_close(DSA().apply(x, draws, SPEC), step)


def test_mode_i_applies_all_but_two_that_move_pixels():
    ops = [[draw.op for draw in DSA(mode="I").draw(2, (1, 8, 8), stream(0, "i", i), shared=True)] for i in range(600)]
    for move in ("crop", "scale", "rotate"):
        assert 140 < sum(move in each for each in ops) < 260
    still = ["color", "cutout", "flip"]
    assert all([op for op in each if op in still] == still and len(each) == 4 for each in ops)
    plain = DSA("color_cutout", mode="I").draw(2, (1, 8, 8), stream(0, "i"), shared=True)
    assert [draw.op for draw in plain] == ["color", "cutout"]


RANGES = {
    "color": {"brightness": (-0.5, 0.5), "saturation": (0, 2), "contrast": (0.5, 1.5)},
    "crop": {"down": (-4, 4), "right": (-4, 4)},
    "cutout": {"row": (0, 28), "col": (0, 28), "height": (14, 14), "width": (14, 14)},
    "flip": {"flip": (0, 1)},
    "scale": {"across": (1 / 1.2, 1.2), "down": (1 / 1.2, 1.2)},
    "rotate": {"degrees": (-15, 15)},
}


@pytest.mark.parametrize("group", GROUPS)
def test_parameters_fill_the_published_ranges(group):
    (draw,) = DSA(group).draw(4000, (1, 28, 28), stream(0, "augment"), shared=False)
    assert set(draw.params) == set(RANGES[group])
    for name, (low, high) in RANGES[group].items():
        values = draw.params[name].double()
        assert len(values) == 4000
        assert low - 1e-6 <= values.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= values.max() <= high + 1e-6
        assert abs(values.mean() - (low + high) / 2) < 0.05 * max(high - low, 0.01)


def test_the_largest_shift_is_four_pixels_at_28_and_at_32():
    for side in (28, 32):
        (draw,) = DSA("crop").draw(500, (1, side, side), stream(0, "augment"), shared=False)
        assert draw.params["down"].abs().max() == 4


@pytest.mark.parametrize("group", GROUPS)
def test_shared_parameters_are_the_same_transform_on_every_image(group):
    x = images(1).expand(5, -1, -1, -1)
    draws = DSA(group).draw(5, (3, 12, 12), stream(3, "augment"), shared=True)
    assert all(len(value) == 1 for value in draws[0].params.values())
    out = DSA(group).apply(x, draws, SPEC)
    assert torch.equal(out, out[:1].expand_as(out))
    assert torch.equal(DSA(group).apply(x[:2], draws, SPEC), out[:2])


@pytest.mark.parametrize("group", GROUPS)
def test_one_row_per_image_equals_shared_draws_one_image_at_a_time(group):
    x = images(6)
    draws = DSA(group).draw(6, (3, 12, 12), stream(4, "augment"), shared=False)
    one_by_one = []
    for i in range(6):
        own = [AugmentDraw(op, {name: value[i : i + 1] for name, value in params.items()}) for op, params in draws]
        one_by_one.append(DSA().apply(x[i : i + 1], own, SPEC))
    torch.testing.assert_close(DSA().apply(x, draws, SPEC), torch.cat(one_by_one), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("group", GROUPS)
def test_gradients_agree_with_finite_differences(group, shared):
    spec = DataSpec((2, 6, 5), ("a", "b"), (0.4, 0.5), (0.2, 0.25))
    x = images(2, (2, 6, 5)).requires_grad_()
    draws = DSA(group).draw(2, (2, 6, 5), stream(9, "augment"), shared=shared)
    assert torch.autograd.gradcheck(lambda v: DSA().apply(v, draws, spec), (x,))


def test_geometry_agrees_with_kornia():
    x, right = images(), kornia.geometry.transform
    mirrored = transforms.flip(x, {"flip": torch.tensor([1, 0, 1, 0])})
    torch.testing.assert_close(mirrored[::2], right.hflip(x[::2]), atol=0, rtol=0)
    assert torch.equal(mirrored[1::2], x[1::2])
    down, across = torch.tensor([1, -2, 0, 2]), torch.tensor([0, 2, -1, -2])
    moved = right.translate(x, -torch.stack([across, down], 1).double(), align_corners=False)
    torch.testing.assert_close(transforms.crop(x, {"down": down, "right": across}), moved, atol=1e-12, rtol=0)
    angle = torch.tensor([10.0, -7.0, 3.0, 15.0])
    turned = right.rotate(x, angle.double(), align_corners=False)
    torch.testing.assert_close(transforms.rotate(x, {"degrees": angle}), turned, atol=1e-12, rtol=0)
    sx, sy = torch.tensor([0.9, 1.1, 1.2, 0.85]), torch.tensor([1.1, 0.9, 0.95, 1.15])
    scaled = right.scale(x, 1 / torch.stack([sx, sy], 1).double(), align_corners=False)
    torch.testing.assert_close(transforms.scale(x, {"across": sx, "down": sy}), scaled, atol=1e-12, rtol=0)


def test_brightness_agrees_with_kornia_and_colour_follows_its_definition():
    x = images()
    b, s, t = (torch.tensor([v]) for v in (0.25, 0.5, 1.25))
    one = torch.ones(1)
    bright = transforms.color(x, {"brightness": b, "saturation": one, "contrast": one})
    torch.testing.assert_close(bright, kornia.enhance.adjust_brightness(x, 0.25, clip_output=False))
    y = x + 0.25
    grey = y.mean(1, keepdim=True)
    y = (y - grey) * 0.5 + grey
    mean = y.mean((1, 2, 3), keepdim=True)
    expected = (y - mean) * 1.25 + mean
    torch.testing.assert_close(transforms.color(x, {"brightness": b, "saturation": s, "contrast": t}), expected)


def test_crop_shared_and_per_image_move_whole_pixels_and_fill_with_the_mean():
    x = images(2)
    params = {"down": torch.tensor([2]), "right": torch.tensor([-3])}
    out = DSA().apply(x, [AugmentDraw("crop", params)], SPEC)
    torch.testing.assert_close(out[:, :, :-2, 3:], x[:, :, 2:, :-3])
    mean = torch.tensor(SPEC.mean, dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close(out[:, :, -2:], mean.expand(2, 3, 2, 12))
    both = {name: value.expand(2) for name, value in params.items()}
    torch.testing.assert_close(DSA().apply(x, [AugmentDraw("crop", both)], SPEC), out)


def test_cutout_is_a_square_clipped_at_the_border_and_filled_with_the_mean():
    params = {"row": [0, 6], "col": [12, 6], "height": [6, 6], "width": [6, 6]}
    draw = AugmentDraw("cutout", {name: torch.tensor(value) for name, value in params.items()})
    hole = DSA().apply(torch.ones(2, 3, 12, 12), [draw], SPEC) < 0.99
    expected = torch.zeros(2, 12, 12, dtype=torch.bool)
    expected[0, :3, 9:] = True
    expected[1, 3:9, 3:9] = True
    assert torch.equal(hole, expected[:, None].expand_as(hole))


def test_a_quarter_turn_of_a_rectangle_keeps_right_angles():
    x = torch.zeros(1, 1, 5, 9)
    x[0, 0, 2, 4:7] = 1
    turned = transforms.rotate(x, {"degrees": torch.tensor([90.0])})
    assert sorted({tuple(p) for p in (turned[0, 0] > 0.9).nonzero().tolist()}) in (
        [(0, 4), (1, 4), (2, 4)],
        [(2, 4), (3, 4), (4, 4)],
    )


def test_digits_are_never_mirrored():
    digits = dataclasses.replace(SPEC, mirror=False)
    assert "flip" not in DSA().for_data(digits).groups
    assert DSA().for_data(SPEC) == DSA()
    with pytest.raises(InputError, match="must not be mirrored"):
        DSA("flip").for_data(digits)


@pytest.mark.parametrize("shared", [True, False])
def test_stored_draws_come_back_bit_for_bit(shared):
    draws = DSA(mode="M").draw(5, (3, 12, 12), stream(2, "augment"), shared=shared)
    again = load(json.loads(json.dumps(dump(draws))))
    assert [draw.op for draw in again] == [draw.op for draw in draws]
    for old, new in zip(draws, again, strict=True):
        for name, value in old.params.items():
            assert new.params[name].dtype == value.dtype
            assert torch.equal(new.params[name], value)


def test_the_same_stream_draws_the_same_parameters():
    first, second = (dump(DSA().draw(3, (1, 8, 8), stream(5, "augment", 2, 1), shared=False)) for _ in range(2))
    assert first == second


def test_half_precision_images_keep_their_type_and_are_close():
    draws = DSA("rotate").draw(4, (3, 12, 12), stream(2, "augment"), shared=True)
    exact = DSA().apply(images().float(), draws, SPEC)
    half = DSA().apply(images().bfloat16(), draws, SPEC)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.02, rtol=0)


def test_no_augmentation_returns_the_very_tensor():
    x = images()
    draws = NoAugment().draw(4, (3, 12, 12), stream(0, "augment"), shared=True)
    assert draws == []
    assert NoAugment().apply(x, draws, SPEC) is x


def test_mistakes_are_refused_with_a_reason():
    with pytest.raises(InputError, match=r'"cutuot": no such group. Did you mean "cutout"\?'):
        DSA("crop_cutuot")
    with pytest.raises(InputError, match='mode "X": give "S"'):
        DSA(mode="X")
    draws = DSA("crop").draw(3, (3, 12, 12), stream(0, "augment"), shared=False)
    with pytest.raises(InputError, match=r"parameters for \[3\] images and was given 4"):
        DSA().apply(images(4), draws, SPEC)
    with pytest.raises(BundleError, match='"flop": no such transform'):
        load([{"op": "flop", "params": {}}])
    with pytest.raises(BundleError, match=r"has \['u'\]; it needs \['flip'\]"):
        load([{"op": "flip", "params": {"u": [1]}}])


@pytest.mark.parametrize("group", ["color", "crop", "cutout", "flip", "scale", "rotate"])
def test_autocast_does_not_change_a_transform(group: str) -> None:
    spec = DataSpec((1, 16, 16), ("a", "b"), (0.3,), (0.2,))
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    augment = DSA(strategy=group)
    draws = augment.draw(1, spec.image_shape, torch.Generator().manual_seed(1), shared=True)
    expected = augment.apply(x, draws, spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment.apply(x, draws, spec), expected)
