"""Diffusion decoders: the whole loop against diffusers, guidance, conditions, skips, truncation, what they refuse."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tiny_models import DDIM, DIT, FLOW, KL, UNET, tiny_diffusion
from torch import Tensor

from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.seeding import global_seed, stream

OWNER = torch.tensor([2, 0, 1])


def made(*args: Any, **settings: Any) -> DiffusionDecoder:
    with global_seed(0, "diffusion"):
        return tiny_diffusion(*args, **settings).eval().requires_grad_(False)


def noise(decoder: DiffusionDecoder, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {key: value.to(dtype) for key, value in decoder.prior(OWNER, stream(1, "z")).items()}


@pytest.mark.parametrize("scheduler", [DDIM, {**DDIM, "prediction_type": "v_prediction"}, FLOW])
def test_the_loop_is_diffusers_own(scheduler: dict[str, Any]) -> None:
    decoder = made(scheduler, steps=5, classes=4, guidance=2.5, null_class=3)
    theirs = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    theirs.set_timesteps(5)
    h = noise(decoder)["z"]
    both = torch.cat([OWNER, torch.full_like(OWNER, 3)])
    for t in theirs.timesteps:
        ours, nobody = decoder.denoiser(torch.cat([h, h]), t, class_labels=both).sample.chunk(2)
        h = theirs.step(nobody + 2.5 * (ours - nobody), t, h).prev_sample
    assert torch.equal(decoder(noise(decoder), OWNER), h / 2 + 0.5)


def test_latent_diffusion_is_the_pipelines() -> None:
    """A DiT with learned variance, guided, over AutoencoderKL: the images of ``DiTPipeline``'s loop."""
    decoder = made(steps=3, dit=True, guidance=4.0, null_class=3)
    scheduler = diffusers.DDIMScheduler.from_config(DDIM)
    scheduler.set_timesteps(3)
    h = noise(decoder)["z"]
    assert h.shape == (3, 2, 4, 4)
    both = torch.cat([OWNER, torch.full_like(OWNER, 3)])
    for t in scheduler.timesteps:
        out = decoder.denoiser(torch.cat([h, h]), timestep=t.expand(6), class_labels=both).sample
        ours, nobody = out[:, :2].chunk(2)
        h = scheduler.step(nobody + 4.0 * (ours - nobody), t, h).prev_sample
    x = decoder.autoencoder.decode(h / KL["scaling_factor"] + KL["shift_factor"]).sample / 2 + 0.5
    torch.testing.assert_close(decoder(noise(decoder), OWNER), x.mean(1, keepdim=True))


def test_recomputing_changes_nothing() -> None:
    """With and without: the same images and the same gradient to the last bit."""
    found = []
    for recompute in (True, False):
        decoder = made(steps=4, recompute=recompute, learn_condition=True, skip="x0")
        z = {key: value.requires_grad_() for key, value in noise(decoder).items()}
        x = decoder(z, OWNER)
        x.square().sum().backward()
        found.append((x.detach(), z["z"].grad, z["c"].grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dit", [False, True])
def test_the_learned_condition_starts_at_the_class(dit: bool) -> None:
    decoder, plain = made(dit=dit, learn_condition=True), made(dit=dit)
    z = noise(decoder)
    assert torch.equal(decoder(z, OWNER), plain({"z": z["z"]}, OWNER))
    moved = decoder({**z, "c": z["c"] + 1}, OWNER)
    assert not torch.equal(moved, decoder(z, OWNER))
    assert torch.equal(moved, decoder({**z, "c": z["c"] + 1}, (OWNER + 1) % 3))


def test_class_ids_choose_the_models_classes() -> None:
    picked, plain = made(class_ids=[2, 0, 1]), made()
    z = noise(plain)
    assert torch.equal(picked(z, OWNER), plain(z, torch.tensor([1, 2, 0])))


def by_hand(decoder: DiffusionDecoder, z: Tensor, skip: str) -> Tensor:
    """The skips restated from their formulas, for epsilon in pixels."""
    h, num = z, len(decoder.plan)
    for i, (time, a, b) in enumerate(decoder.plan):
        e = decoder.denoiser(h, torch.tensor(time), class_labels=OWNER).sample
        x0 = (h - (1 - a) ** 0.5 * e) / a**0.5
        if skip == "x0":
            weight = (num - 1 - i) / (num - 1)
            x0 = (1 - weight) * x0 + weight * z
        h = b**0.5 * x0 + (1 - b) ** 0.5 * e
        if skip == "state":
            h = (1 - (num - i) / num) * h + (num - i) / num * z
    return h / 2 + 0.5


@pytest.mark.parametrize("skip", ["none", "state", "x0"])
def test_skip_from_the_start(skip: str) -> None:
    decoder = made(steps=4, skip=skip).double()
    z = noise(decoder, torch.float64)
    torch.testing.assert_close(decoder(z, OWNER), by_hand(decoder, z["z"], skip), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheduler", [DDIM, FLOW])
@pytest.mark.parametrize("backward_steps", [1, 3, 4, 9])
def test_truncation_treats_early_outputs_as_constants(scheduler: dict[str, Any], backward_steps: int) -> None:
    """Same images; the gradient is that of a decoder whose early network outputs are given numbers."""
    whole, cut = made(scheduler, steps=4), made(scheduler, steps=4, backward_steps=backward_steps)
    z = noise(whole)["z"].requires_grad_()
    x = cut({"z": z}, OWNER)
    assert torch.equal(x, whole({"z": z}, OWNER))
    (gradient,) = torch.autograd.grad(x.square().sum(), z)

    outputs: list[Tensor] = []
    network = whole.network

    def recorded(h: Tensor, label: Tensor | None, time: float) -> Tensor:
        outputs.append(network(h, label, time))
        return outputs[-1]

    whole.network = recorded  # type: ignore[method-assign]
    with torch.no_grad():
        whole({"z": z}, OWNER)
    fixed = iter(outputs[: max(4 - backward_steps, 0)])

    def early_fixed(h: Tensor, label: Tensor | None, time: float) -> Tensor:
        constant = next(fixed, None)
        return network(h, label, time) if constant is None else constant

    whole.network = early_fixed  # type: ignore[method-assign]
    whole.recompute = False
    (wanted,) = torch.autograd.grad(whole({"z": z}, OWNER).square().sum(), z)
    torch.testing.assert_close(gradient, wanted)
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


def test_noise_is_the_rows_own_at_every_decoding() -> None:
    decoder, other = made(steps=3, eta=1.0, noise_seed=4), made(steps=3, eta=1.0, noise_seed=5)
    z = noise(decoder)
    assert torch.equal(decoder(z, OWNER), decoder(z, OWNER))
    assert not torch.equal(decoder(z, OWNER), other(z, OWNER))
    alone = decoder({"z": z["z"][1:2]}, OWNER[1:2])
    torch.testing.assert_close(alone, decoder(z, OWNER)[1:2])


def test_grey_images_of_a_colour_model_and_back() -> None:
    colour = {**UNET, "in_channels": 3, "out_channels": 3}
    plan = made().plan
    with global_seed(0, "diffusion"):
        grey = DiffusionDecoder("UNet2DModel", colour, [1, 8, 8], "epsilon", plan).eval()
    assert grey.latent_shapes == {"z": (3, 8, 8)}
    assert grey(noise(grey), OWNER).shape == (3, 1, 8, 8)
    with global_seed(0, "diffusion"):
        rgb = DiffusionDecoder("UNet2DModel", UNET, [3, 8, 8], "epsilon", plan).eval()
    x = rgb(noise(rgb), OWNER)
    assert x.shape == (3, 3, 8, 8)
    assert torch.equal(x[:, 0], x[:, 2])


PLAN = [[900, 0.1, 0.5], [400, 0.5, 1.0]]
GOOD: dict[str, Any] = {
    "denoiser_class": "UNet2DModel",
    "denoiser_config": {**UNET, "num_class_embeds": 3},
    "image_shape": [1, 8, 8],
    "prediction": "epsilon",
    "plan": PLAN,
    "num_classes": 3,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denoiser_class": "UNet2DConditionModel"}, 'denoiser_class = "UNet2DConditionModel": known are UNet2DModel'),
        ({"autoencoder_class": "AutoencoderOobleck"}, 'autoencoder_class = "AutoencoderOobleck": known are Auto'),
        ({"prediction": "noise"}, 'prediction = "noise": known are epsilon, sample'),
        ({"skip": "state0"}, 'skip = "state0": known are none, state, x0'),
        ({"plan": []}, "plan: give at least one step, each of 3 numbers"),
        ({"plan": [[1, 0.5]]}, "plan: give at least one step, each of 3 numbers"),
        ({"num_classes": None}, "num_classes = None, .* the denoiser has classes 0 to 2"),
        ({"class_ids": [0, 1]}, r"class_ids = \[0, 1\]: the denoiser has classes 0 to 2; give one of them for each"),
        ({"class_ids": [0, 1, 3]}, r"class_ids = \[0, 1, 3\]: the denoiser has classes 0 to 2"),
        ({"denoiser_config": UNET}, "num_classes = 3.*: the denoiser has no classes"),
        ({"denoiser_config": {**UNET, "class_embed_type": "timestep"}}, "class_embed_type must be null"),
        ({"guidance": 2.0}, "guidance = 2.0: needs a class for none, null_class = None; the denoiser has classes 0 to"),
        ({"guidance": 2.0, "null_class": 3}, "null_class = 3"),
        (
            {"denoiser_config": UNET, "num_classes": None, "learn_condition": True},
            "learn_condition: the denoiser has no classes",
        ),
        ({"skip": "state", "plan": PLAN[1:]}, 'skip = "state" with one step is z itself'),
        ({"prediction": "flow", "skip": "x0"}, 'prediction = "flow" knows no x0 and no noise'),
        ({"prediction": "flow", "eta": 0.5}, "eta = 0.5: .*knows no x0 and no noise"),
        ({"prediction": "linear", "plan": [[1, 1, 1, 1, 1]] * 2}, 'prediction = "linear": give one step'),
        ({"eta": -1.0}, "eta = -1.0"),
        ({"eta": 1.5}, "eta = 1.5, .*: give 0 to 1"),
        ({"backward_steps": 0}, "backward_steps = 0: give 0 to 1, and 1 or more"),
        ({"image_shape": [8, 8]}, r"image_shape = \(8, 8\): give \(c, h, w\) with c = 1"),
        ({"image_shape": [2, 8, 8]}, r"give \(c, h, w\) with c = 1, or 1 for 3, or 3 for 1"),
        (
            {"autoencoder_class": "AutoencoderKL", "autoencoder_config": KL},
            "the denoiser takes 1 channels, but latents of the autoencoder have 2",
        ),
        (
            {"denoiser_class": "DiTTransformer2DModel", "denoiser_config": {**DIT, "in_channels": 1}},
            "this model makes images of 4 x 4",
        ),
    ],
)
def test_refused_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionDecoder(**{**GOOD, **change})


def test_sides_must_be_multiples() -> None:
    config = {**UNET, "in_channels": 2, "out_channels": 2}
    with pytest.raises(ValueError, match="this model makes images of multiples of 2"):
        DiffusionDecoder(
            "UNet2DModel", config, [1, 9, 9], "epsilon", PLAN, autoencoder_class="AutoencoderKL", autoencoder_config=KL
        )


def test_sides_must_survive_every_level_of_the_unet() -> None:
    levels = {
        "down_block_types": ["DownBlock2D"] * 3,
        "up_block_types": ["UpBlock2D"] * 3,
        "block_out_channels": [4, 4, 4],
    }
    config = {**UNET, "num_class_embeds": 3, **levels}
    with pytest.raises(
        ValueError, match=r"a U-Net of 3 levels halves its input 2 times: .*multiples of 4; load .*--size"
    ):
        DiffusionDecoder(**{**GOOD, "denoiser_config": config, "image_shape": [1, 10, 12]})
    DiffusionDecoder(**{**GOOD, "denoiser_config": config, "image_shape": [1, 12, 12]})


def test_blocks_that_embed_classes_differently_have_no_condition_to_learn() -> None:
    with global_seed(0, "diffusion"):
        decoder = DiffusionDecoder(
            "DiTTransformer2DModel",
            {**DIT, "num_layers": 2, "in_channels": 1, "sample_size": 8},
            [1, 8, 8],
            "epsilon",
            PLAN,
            3,
            learn_condition=True,
        )
    with pytest.raises(ValueError, match="each block of this DiT embeds classes in its own way"):
        decoder.prior(OWNER, stream(0, "z"))
