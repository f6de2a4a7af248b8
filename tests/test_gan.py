"""The generator as a component: sizes, refusals, conditioning, what is stored."""

from __future__ import annotations

import math

import pytest
import torch

from latentdc.portable.gan import GanDecoder
from latentdc.seeding import stream


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((1, 28, 28), (8, 6, 4)),
        ((3, 32, 32), (8, 6, 4, 4)),
        ((1, 16, 16), (8, 4)),
        ((3, 64, 64), (8, 6, 4, 4, 4)),
        ((1, 8, 8), (8,)),
        ((1, 12, 20), (8, 4, 4)),
    ],
)
def test_sizes(shape: tuple[int, int, int], channels: tuple[int, ...]) -> None:
    decoder = GanDecoder(shape, 3, 5, channels).eval()
    owner = torch.tensor([0, 2])
    x = decoder(decoder.prior(owner, stream(0, "t")), owner)
    assert x.shape == (2, *shape)
    assert 0 <= float(x.detach().min()) <= float(x.detach().max()) <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_shape": (1, 30, 30)}, "divisible by 4"),
        ({"channels": ()}, "channels"),
        ({"z_dim": 0}, "at least 1"),
        ({"num_classes": 0}, "at least 1"),
        ({"truncation": 0.5}, "truncation = 0.5: .*mapping network"),
        ({"truncation": math.nan, "mapping": 1}, "truncation = nan: give 0 to 1"),
    ],
)
def test_refuses(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GanDecoder(**({"image_shape": (1, 28, 28), "channels": (8, 6, 4)} | change))


def test_default_fits_the_budget() -> None:
    decoder = GanDecoder((1, 28, 28), 10, 16, (128, 64, 24))
    stored = sum(value.numel() * value.element_size() for value in decoder.state_dict().values())
    assert stored <= 3 * 2**20


def test_prior_is_standard_normal() -> None:
    draw = GanDecoder((1, 8, 8), 3, 16, (4,)).prior(torch.zeros(4000, dtype=torch.int64), stream(0, "t"))["z"]
    assert draw.shape == (4000, 16)
    assert abs(float(draw.mean())) < 0.02
    assert abs(float(draw.std()) - 1) < 0.02


def test_latent_and_class_both_matter() -> None:
    decoder = GanDecoder((1, 8, 8), 3, 4, (8, 4)).eval()
    z = decoder.prior(torch.zeros(2, dtype=torch.int64), stream(0, "t"))["z"]
    base, moved = (decoder({"z": rows}, torch.zeros(2, dtype=torch.int64)) for rows in (z, z + 1))
    other = decoder({"z": z}, torch.ones(2, dtype=torch.int64))
    assert not torch.allclose(base, moved)
    assert not torch.allclose(base, other)


def test_training_mode_normalises_by_the_batch() -> None:
    decoder = GanDecoder((1, 8, 8), 3, 4, (8, 4)).train()
    owner = torch.tensor([0, 1, 2, 0])
    z = decoder.prior(owner, stream(0, "t"))["z"]
    alone = decoder({"z": z[:2]}, owner[:2])
    assert not torch.allclose(alone, decoder({"z": z}, owner)[:2])
