"""Latent spaces of the GAN decoders: the same image from every space, shared weights, class means, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_parts import tiny_decoder

from latentdc.data.store import ClassStore
from latentdc.decoders.reference import load_decoder
from latentdc.errors import InputError
from latentdc.fit import GanRecipe, fit
from latentdc.initialise import initialise
from latentdc.portable.biggan import BigGanDecoder
from latentdc.portable.stylegan2 import StyleGan2Decoder
from latentdc.seeding import stream

OWNER = torch.tensor([0, 2, 1, 1])
SPACES = {
    "gan": ("f0", "f1"),
    "gan:mapped-z": ("w", "w+", "f0", "f1"),
    "stylegan2": ("w", "w+", "f0", "f1", "f2", "f3"),
    "biggan": ("f0",),
    "biggan:deep": ("f0", "f1"),
}
PAIRS = [(name, space) for name, spaces in SPACES.items() for space in spaces]


@pytest.mark.parametrize(("name", "space"), PAIRS)
def test_a_draw_gives_the_same_image_in_every_space(name: str, space: str) -> None:
    base = tiny_decoder(name)
    other = base.in_space(space)
    assert other.config.space == space
    want = base(base.prior(OWNER, stream(0, "s")), OWNER)
    got = other(other.prior(OWNER, stream(0, "s")), OWNER)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_spaces_share_their_weights() -> None:
    base = tiny_decoder("stylegan2")
    other = base.in_space("w+")
    shared = {value.data_ptr() for value in base.state_dict().values()}
    assert {value.data_ptr() for value in other.state_dict().values()} == shared
    assert not any(parameter.requires_grad for parameter in other.parameters())
    assert not other.training
    assert base.config.space == "z"


def test_in_space_draws_nothing() -> None:
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    tiny = tiny_decoder("stylegan2")
    torch.manual_seed(3)
    tiny.in_space("w")
    assert torch.equal(torch.rand(1), want)


@pytest.mark.parametrize("space", ["w", "w+", "f2"])
def test_class_mean(space: str) -> None:
    decoder = tiny_decoder("stylegan2").in_space(space)
    mean = decoder.class_mean(OWNER, stream(0, "m"), num=500)
    assert {key: value.shape[1:] for key, value in mean.items()} == dict(decoder.latent_shapes)
    w = mean["w"]
    assert torch.equal(w[2], w[3])
    assert not torch.allclose(w[0], w[1])
    drawn = decoder.prior(torch.full((2000,), 2), stream(1, "m"))["w"].mean(0)
    torch.testing.assert_close(w[1], drawn, rtol=0, atol=0.15)


def test_own_mapping_truncates_towards_its_class() -> None:
    decoder = tiny_decoder("gan:mapped-w")
    plain = decoder.prior(OWNER, stream(0, "t"))["w"]
    decoder.mapper.means.copy_(torch.arange(12.0).reshape(3, 4))
    torch.testing.assert_close(decoder.prior(OWNER, stream(0, "t"))["w"], plain + 0.1 * decoder.mapper.means[OWNER])
    mean = decoder.class_mean(OWNER, stream(0, "m"), num=3000)["w"][1]
    drawn = decoder.prior(torch.full((3000,), 2), stream(1, "m"))["w"].mean(0)
    torch.testing.assert_close(mean, drawn, rtol=0, atol=0.15)


def test_truncation_pulls_towards_the_mean() -> None:
    whole = tiny_decoder("stylegan2").in_space("w")
    settings = {k: v for k, v in whole.config.items() if not k.startswith("_")}
    half = StyleGan2Decoder(**{**settings, "truncation": 0.5})
    half.load_state_dict(whole.state_dict())
    w, near = (d.prior(OWNER, stream(0, "t"))["w"] for d in (whole, half))
    torch.testing.assert_close(near, (w + whole.mapper.mean) / 2)
    limited = tiny_decoder("biggan:deep").prior(torch.zeros(500, dtype=torch.int64), stream(0, "t"))["z"]
    assert 1.4 < float(limited.abs().max()) <= 1.6


def test_refuses_spaces_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="no class mean: take in_space"):
        tiny_decoder("stylegan2").class_mean(OWNER, stream(0, "m"))
    with pytest.raises(ValueError, match="class mean needs a mapping network and a space other than z"):
        tiny_decoder("gan:f0").class_mean(OWNER, stream(0, "m"))
    with pytest.raises(
        ValueError, match=r'space "w": this generator has z and f0 to f1. w and w\+ need .* --mapping 2'
    ):
        tiny_decoder("gan").in_space("w")
    with pytest.raises(ValueError, match=r'space "f2": this generator has z, w, w\+ and f0 to f1.$'):
        tiny_decoder("gan:mapped-z").in_space("f2")
    with pytest.raises(ValueError, match='space "f4": this generator has z, w, w\\+ and f0 to f3'):
        tiny_decoder("stylegan2").in_space("f4")
    for space in ("w", "w+", "f1", "p"):
        with pytest.raises(ValueError, match="has z and f0 to f0; w and w\\+ need a mapping network"):
            tiny_decoder("biggan").in_space(space)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (StyleGan2Decoder, {"image_shape": (3, 24, 24)}, "4 levels of channels: give"),
        (StyleGan2Decoder, {"image_shape": (3, 4, 4), "channels": ()}, "0 levels of channels"),
        (StyleGan2Decoder, {"z_dim": 0}, "at least 1"),
        (BigGanDecoder, {"image_shape": (3, 64, 64)}, r"with 3 blocks: give \(c, 32, 32\)"),
        (BigGanDecoder, {"z_dim": 10}, "in 4 chunks, deep = False: .* hierarchical = False"),
        (BigGanDecoder, {"num_classes": 0}, "at least 1"),
        (BigGanDecoder, {"image_shape": (3, 8, 8), "deep": True}, "in 4 chunks, deep = True"),
    ],
)
def test_refuses_sizes(kind: type, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**settings)


def test_the_class_mean_start_begins_at_the_decoders_mean() -> None:
    decoder = tiny_decoder("gan:mapped-w")
    z = initialise("class-mean", decoder, [2, 0, 1], seed=0).latents()["w"]
    mean = decoder.class_mean(torch.tensor([2]), stream(0, "init-class-mean", index=2), num=1000)["w"]
    assert torch.equal(z[2], mean[0])
    assert not torch.allclose(z[0], z[1])
    with pytest.raises(InputError, match='init = "class-mean": a class mean needs a mapping network'):
        initialise("class-mean", tiny_decoder("gan"), [1, 1, 1], seed=0)


def test_a_mapping_network_opens_its_spaces(make_store: Callable[..., ClassStore], tmp_path: Path) -> None:
    recipe = GanRecipe(z_dim=4, channels=(8, 4), critic_channels=(8, 8), batch_size=8, embed_dim=4, mapping=2)
    out = fit(make_store(20), recipe, out=tmp_path / "mapped", steps=3, progress=False, figures=False)
    decoder: Any = load_decoder(out)
    assert decoder.in_space("w+").latent_shapes == {"w": (3, 4)}
    owner = torch.arange(3)
    mean = decoder.in_space("w").class_mean(owner, stream(1, "m"), num=2000)["w"]
    torch.testing.assert_close(decoder.mapper.means, mean, rtol=0, atol=0.2)
