"""Autoencoder decoders: diffusers' own images, scale and shift, colours, the code book, what they refuse."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tiny_models import AUTOENCODERS, KL, tiny_autoencoder

from latentdc.decoders.settings import configured
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.seeding import global_seed, stream

OWNER = torch.tensor([0, 1, 2])


def made(name: str, **settings: Any) -> AutoencoderDecoder:
    with global_seed(0, "autoencoder"):
        return tiny_autoencoder(name, **settings).eval().requires_grad_(False)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_decodes_what_diffusers_decodes(name: str) -> None:
    decoder = made(name)
    model = decoder.autoencoder
    z = decoder.prior(OWNER, stream(0, "z"))
    raw = z["z"] / model.config.scaling_factor + (0.1 if name == "AutoencoderKL" else 0.0)
    x = model.decode(raw, **({"force_not_quantize": True} if name == "VQModel" else {})).sample / 2 + 0.5
    assert torch.equal(decoder(z, OWNER), x.mean(1, keepdim=True) if x.shape[1] == 3 else x)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_encodes_what_diffusers_encodes(name: str) -> None:
    """Scaled as a diffusion model sees it: decoding the latent is the model's own round trip, without its sampling."""
    decoder = made(name)
    model = decoder.autoencoder
    x = torch.rand(3, 1, 8, 8, generator=stream(0, "x"))
    out = model.encode((2 * x - 1).expand(-1, model.config.in_channels, -1, -1))
    raw = {
        "AutoencoderKL": lambda: out.latent_dist.mean,
        "AutoencoderDC": lambda: out.latent,
    }.get(name, lambda: out.latents)()
    shift = 0.1 if name == "AutoencoderKL" else 0.0
    z = decoder.encode(x, OWNER)
    torch.testing.assert_close(z["z"], (raw - shift) * model.config.scaling_factor)
    again = model.decode(raw, **({"force_not_quantize": True} if name == "VQModel" else {})).sample / 2 + 0.5
    torch.testing.assert_close(decoder(z, OWNER), again.mean(1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_scale_and_shift_can_be_given() -> None:
    decoder, plain = made("AutoencoderKL", latent_scale=2.0, latent_shift=-1.0), made("AutoencoderKL")
    z = plain.prior(OWNER, stream(0, "z"))["z"]
    torch.testing.assert_close(
        decoder({"z": ((z / 0.5 + 0.1) + 1.0) * 2.0}, OWNER), plain({"z": z}, OWNER), rtol=1e-4, atol=1e-5
    )


def test_each_channel_on_its_own_scale() -> None:
    """As diffusers' pipelines use these entries: raw = z · std / scaling_factor + mean."""
    std, mean = [2.0, 0.5], [-1.0, 3.0]
    plain = made("AutoencoderKL")
    decoder = AutoencoderDecoder("AutoencoderKL", {**KL, "latents_mean": mean, "latents_std": std}, [1, 8, 8]).eval()
    decoder.load_state_dict(plain.state_dict())
    decoder.requires_grad_(False)
    z = plain.prior(OWNER, stream(0, "z"))["z"]
    wide_std, wide_mean = (torch.tensor(value)[:, None, None] for value in (std, mean))
    raw = z * wide_std / 0.5 + wide_mean
    want = plain.autoencoder.decode(raw).sample.mean(1, keepdim=True) / 2 + 0.5
    torch.testing.assert_close(decoder({"z": z}, OWNER), want, rtol=1e-4, atol=1e-5)
    x = torch.rand(3, 1, 8, 8, generator=stream(0, "x"))
    encoded = (plain.encode(x)["z"] / 0.5 + 0.1 - wide_mean) * 0.5 / wide_std
    torch.testing.assert_close(decoder.encode(x)["z"], encoded, rtol=1e-4, atol=1e-5)
    whole = configured(decoder, {"latent_scale": 0.5, "latent_shift": 0.1})
    assert torch.equal(whole({"z": z}, OWNER), plain({"z": z}, OWNER))


def test_colour_images_of_a_grey_model() -> None:
    with global_seed(0, "autoencoder"):
        decoder = AutoencoderDecoder("AutoencoderTiny", AUTOENCODERS["AutoencoderTiny"], [3, 8, 8]).eval()
    x = decoder(decoder.encode(torch.rand(3, 3, 8, 8), OWNER), OWNER)
    assert x.shape == (3, 3, 8, 8)
    assert torch.equal(x[:, 0], x[:, 2])


def test_the_code_book_is_used_where_asked() -> None:
    exact, coded = made("VQModel"), made("VQModel", quantise=True)
    z = exact.prior(OWNER, stream(0, "z"))
    raw = z["z"] / exact.latent_scale
    codes = coded.autoencoder.quantize(raw)[0]
    torch.testing.assert_close(coded(z, OWNER), exact({"z": codes * exact.latent_scale}, OWNER))
    assert not torch.equal(coded(z, OWNER), exact(z, OWNER))


@pytest.mark.parametrize(
    ("config", "sides", "shape"),
    [
        ({**KL, "block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
          "up_block_types": ["UpDecoderBlock2D"] * 4}, 32, (2, 4, 4)),
        (KL, 28, (2, 14, 14)),
    ],
)  # fmt: skip
def test_latent_shapes_from_the_configuration(config: dict[str, Any], sides: int, shape: tuple[int, ...]) -> None:
    decoder = AutoencoderDecoder("AutoencoderKL", config, [3, sides, sides]).eval().requires_grad_(False)
    assert decoder.latent_shapes == {"z": shape}
    assert decoder(decoder.prior(OWNER[:1], stream(0, "z")), OWNER[:1]).shape == (1, 3, sides, sides)


@pytest.mark.parametrize(
    ("name", "config", "shape", "settings", "message"),
    [
        ("AutoencoderOobleck", {}, [1, 8, 8], {}, 'model_class = "AutoencoderOobleck": known autoencoders are Auto'),
        ("AutoencoderKL", KL, [1, 9, 8], {}, r"reduces height and width 2 times; give \(c, h, w\) with h and w multi"),
        ("AutoencoderKL", KL, [8, 8], {}, "multiples of 2"),
        ("AutoencoderKL", KL, [2, 8, 8], {}, "makes 3 channels; give as many, or 1 for 3, or 3 for 1"),
        ("AutoencoderKL", KL, [1, 8, 8], {"quantise": True}, "a AutoencoderKL has no code book; only a VQModel"),
        (
            "AutoencoderKL",
            {**KL, "latents_mean": [0.0, 1.0, 2.0], "latents_std": [1.0, 1.0]},
            [1, 8, 8],
            {},
            "model_config: latents_mean has 3 numbers for 2 channels",
        ),
        (
            "VQModel",
            {**AUTOENCODERS["VQModel"], "lookup_from_codebook": True},
            [1, 8, 8],
            {},
            "with lookup_from_codebook latents are indices, which cannot be learned",
        ),
    ],
)
def test_refused_settings(
    name: str, config: dict[str, Any], shape: list[int], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AutoencoderDecoder(name, config, shape, **settings)


def test_straight_through_is_biased_and_exact_is_not() -> None:
    """Why the code book is off by default: with it the gradient ignores which code a latent falls on."""
    z = made("VQModel").prior(OWNER, stream(0, "z"))["z"].requires_grad_()
    gradients = [torch.autograd.grad(made("VQModel", quantise=on)({"z": z}, OWNER).sum(), z)[0] for on in (False, True)]
    assert not torch.allclose(*gradients)


def test_every_class_exists_in_diffusers() -> None:
    assert all(hasattr(diffusers, name) for name in AUTOENCODERS)
