"""CutMix against the rectangle and labels its definition asks for."""

from __future__ import annotations

import pytest
import torch

from latentdc.data.cut_mix import CutMix
from latentdc.errors import InputError

X = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 9, 7)
"""Images that show which one a pixel came from."""
Y = torch.eye(6)


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(20))
def test_one_rectangle_of_another_image_and_labels_by_area(seed: int) -> None:
    x, y = CutMix(1.0)(X, Y, _rng(seed))
    inside = x != X
    assert torch.equal(inside, inside[:, :1].expand_as(inside))
    outlines = {tuple(sorted({tuple(place) for place in each[0].nonzero().tolist()})) for each in inside}
    rectangle = max(outlines, key=len)
    assert outlines <= {rectangle, ()}  # empty for an image that was exchanged with itself
    rows, cols = {r for r, _ in rectangle}, {c for _, c in rectangle}
    assert len(rectangle) == len(rows) * len(cols)
    for number, (image, target) in enumerate(zip(x, y, strict=True)):
        shares = torch.tensor([(image[0] == other).double().mean() for other in range(6)])
        torch.testing.assert_close(target.double(), shares, atol=1e-6, rtol=0)
        assert target[number] >= 1 - len(rectangle) / 63 - 1e-6


def test_happens_as_often_as_asked_and_repeats() -> None:
    mixed = [CutMix(0.5)(X, Y, _rng(seed))[0] is not X for seed in range(200)]
    assert 70 < sum(mixed) < 130
    one, other = (CutMix(1.0)(X, Y, _rng(3)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.5, float("nan")])
def test_a_probability_out_of_range_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match=r"cut_mix = .*above 0 and at most 1"):
        CutMix(wrong)
