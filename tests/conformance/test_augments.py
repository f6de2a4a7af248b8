"""Laws every augmentation obeys."""

from __future__ import annotations

import pytest
import torch

from latentdc.data import AUGMENTS
from latentdc.data.augment import dump, load
from latentdc.seeding import stream
from latentdc.types import DataSpec

pytestmark = pytest.mark.parametrize("kind", AUGMENTS)
SHAPES = [(1, 8, 8), (3, 7, 10)]


def spec_of(shape):
    return DataSpec(shape, ("a", "b"), (0.3,) * shape[0], (0.2,) * shape[0], mirror=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_type_and_parameters_are_kept_and_the_result_is_a_function_of_the_draw(kind, shape):
    spec = spec_of(shape)
    augment = AUGMENTS[kind]().for_data(spec)
    x = torch.rand(4, *shape)
    for step in range(12):
        draws = augment.draw(4, shape, stream(0, "augment", step), shared=bool(step % 2))
        before = dump(draws)
        out = augment.apply(x, draws, spec)
        assert out.shape == x.shape
        assert out.dtype == x.dtype
        assert out.isfinite().all()
        assert dump(draws) == before
        assert torch.equal(out, augment.apply(x.clone(), load(before), spec))


@pytest.mark.parametrize("shape", SHAPES)
def test_both_sides_get_the_same_transform_whatever_their_size(kind, shape):
    spec = spec_of(shape)
    augment = AUGMENTS[kind]()
    x = torch.rand(5, *shape)
    for step in range(12):
        draws = augment.draw(5, shape, stream(1, "augment", step), shared=True)
        whole = augment.apply(x, draws, spec)
        torch.testing.assert_close(whole[:2], augment.apply(x[:2], draws, spec))


def test_gradients_reach_the_images(kind):
    spec = spec_of((1, 8, 8))
    augment = AUGMENTS[kind]()
    for step in range(12):
        x = torch.rand(2, 1, 8, 8, requires_grad=True)
        augment.apply(x, augment.draw(2, (1, 8, 8), stream(2, "augment", step), shared=True), spec).sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0


def test_it_names_its_sources(kind):
    assert isinstance(AUGMENTS[kind].cite, tuple)
