"""The latents of diffusion decoders: images encoded by going the steps backwards, decoding that begins in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import DDIM, FLOW, KL, tiny_autoencoder, tiny_diffusion
from torch import Tensor

import latentdc.decoders.diffusion as home
from latentdc.decoders.components import load_component
from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.errors import InputError
from latentdc.initialise import initialise
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.seeding import global_seed, stream

OWNER = torch.arange(3).repeat(8)
CENTRES = torch.randn(3, 4, 64, generator=stream(0, "centres"))
"""Four clusters in each of three classes, in [-1, 1] pixels and beyond."""
V = {**DDIM, "prediction_type": "v_prediction"}
SAMPLE = {**DDIM, "prediction_type": "sample"}


def made(*args: Any, **settings: Any) -> DiffusionDecoder:
    with global_seed(0, "diffusion-latents"):
        return tiny_diffusion(*args, **settings).eval().requires_grad_(False)


def knows_the_data(decoder: DiffusionDecoder, variance: float = 0.05) -> DiffusionDecoder:
    """The decoder with the exact denoiser of the clusters, each a Gaussian of that variance, as its network."""

    def network(h: Tensor, label: Tensor, time: float, guidance: float | None = None) -> Tensor:
        del guidance
        level = next(step[1] for step in decoder.plan if step[0] == time)
        flow = decoder.prediction == "flow"
        signal, noise = (1 - level, level) if flow else (level**0.5, (1 - level) ** 0.5)
        spread = signal**2 * variance + noise**2
        gaps = h.flatten(1)[:, None] - signal * CENTRES[label]  # (n, 4, 64)
        share = torch.softmax(-gaps.square().sum(-1) / (2 * spread), 1)
        e = noise / spread * (share[:, :, None] * gaps).sum(1)
        x0 = torch.where(torch.tensor(signal > 0.001), (h.flatten(1) - noise * e) / max(signal, 0.001), 0.0)
        said = {"epsilon": e, "sample": x0, "v_prediction": signal * e - noise * x0, "flow": e - x0}
        return said[decoder.prediction].view_as(h)

    decoder.network = network  # type: ignore[method-assign]
    return decoder


def images(variance: float = 0.05) -> Tensor:
    points = CENTRES[OWNER, torch.arange(24) % 4] + variance**0.5 * torch.randn(24, 64, generator=stream(1, "points"))
    return (points / 2 + 0.5).view(24, 1, 8, 8)


def error(decoder: DiffusionDecoder) -> float:
    x = images()
    return float((decoder(decoder.encode(x, OWNER), OWNER) - x).square().mean())


@pytest.mark.parametrize("start", [1.0, 0.6])
@pytest.mark.parametrize("scheduler", [DDIM, V, SAMPLE, FLOW], ids=["epsilon", "v", "sample", "flow"])
def test_the_way_back_is_nearer_the_more_steps(
    scheduler: dict[str, Any], start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {steps: error(knows_the_data(made(scheduler, steps=steps, start=start))) for steps in (5, 20, 50)}
    assert errors[5] > 4 * errors[20] > 16 * errors[50]
    monkeypatch.setattr(home, "PASSES", 1)  # plain DDIM inversion
    assert error(knows_the_data(made(scheduler, steps=20, start=start))) > 4 * errors[20]


@pytest.mark.parametrize("scheduler", [DDIM, FLOW])
def test_a_denoiser_that_says_always_the_same_is_inverted_exactly(scheduler: dict[str, Any]) -> None:
    decoder, x = made(scheduler, steps=4), images()
    says = torch.randn(1, 1, 8, 8, generator=stream(0, "says"))
    decoder.network = lambda h, label, time, guidance=None: says.expand_as(h)  # type: ignore[method-assign]
    torch.testing.assert_close(decoder(decoder.encode(x, OWNER), OWNER), x, rtol=0, atol=1e-4)


def test_of_normal_data_latents_are_the_images_themselves() -> None:
    """For x0 ~ N(0, I) the way is a rotation of (x0, noise) without end: z → the clean latent, as the steps grow."""
    decoder, x = made(steps=200), images()
    level = {step[0]: step[1] for step in decoder.plan}
    decoder.network = lambda h, label, time, guidance=None: (1 - level[time]) ** 0.5 * h  # type: ignore[method-assign]
    torch.testing.assert_close(decoder.encode(x, OWNER)["z"], decoder.clean(x), rtol=0.02, atol=0.01)


def test_clean_latents_are_the_autoencoders() -> None:
    with global_seed(0, "diffusion-latents"):
        encoder = tiny_autoencoder("AutoencoderKL").eval()
    decoder, x = made(dit=True), images()
    decoder.autoencoder = encoder.autoencoder
    assert KL["shift_factor"]
    torch.testing.assert_close(decoder.clean(x), encoder.encode(x)["z"])
    assert torch.equal(made().clean(x), 2 * x - 1)


def test_each_channel_on_its_own_scale() -> None:
    """Inside a diffusion model as on its own: an autoencoder's means and deviations, both ways."""
    told = {**KL, "latents_mean": [-1.0, 3.0], "latents_std": [2.0, 0.5]}
    plain = made(dit=True)
    config = {**plain.config, "autoencoder_config": told}
    with global_seed(0, "diffusion-latents"):
        decoder = DiffusionDecoder(**{name: value for name, value in config.items() if name[0] != "_"})
    decoder.load_state_dict(plain.state_dict())
    alone = AutoencoderDecoder("AutoencoderKL", told, [1, 8, 8])
    alone.autoencoder = decoder.autoencoder
    h = torch.randn(3, 2, 4, 4, generator=stream(0, "h"))
    torch.testing.assert_close(decoder._image(h), alone({"z": h}, OWNER[:3]))
    torch.testing.assert_close(decoder.clean(images()), alone.encode(images())["z"])
    wrong = {**config, "autoencoder_config": {**KL, "latents_std": [1.0, 2.0, 3.0]}}
    with pytest.raises(ValueError, match=r"autoencoder_config: latents_std = \[1.0, 2.0, 3.0\] for 2 channels"):
        DiffusionDecoder(**{name: value for name, value in wrong.items() if name[0] != "_"})


def test_no_guidance_no_skip_on_the_way_back_and_the_classs_condition() -> None:
    plain = made(classes=4, steps=4)
    other = made(classes=4, steps=4, guidance=5.0, null_class=3, skip="x0", learn_condition=True)
    x = images()
    z = other.encode(x, OWNER)
    assert torch.equal(z["z"], plain.encode(x, OWNER)["z"])
    assert torch.equal(z["c"], other.prior(OWNER, stream(0, "z"))["c"])
    assert not torch.equal(plain.encode(x, OWNER)["z"], plain.encode(x, (OWNER + 1) % 3)["z"])


@pytest.mark.parametrize("scheduler", [DDIM, FLOW])
def test_decoding_begins_where_the_steps_left_out_would_end(scheduler: dict[str, Any], tmp_path: Any) -> None:
    whole, late = made(scheduler, steps=10), made(scheduler, steps=10, start=0.7)
    drawn = [decoder.prior(OWNER, stream(3, "z")) for decoder in (whole, late)]
    assert (whole.first, late.first) == (0, 3)
    assert not torch.equal(drawn[0]["z"], drawn[1]["z"])
    torch.testing.assert_close(late(drawn[1], OWNER), whole(drawn[0], OWNER))
    late.save_pretrained(tmp_path)
    again = load_component(DiffusionDecoder, tmp_path).requires_grad_(False)
    assert again.config.start == 0.7
    assert torch.equal(again(drawn[1], OWNER), late(drawn[1], OWNER))


@pytest.mark.parametrize(("start", "steps", "taken"), [(1.0, 10, 10), (0.62, 50, 31), (0.7, 10, 7), (0.01, 10, 1)])
def test_steps_taken(start: float, steps: int, taken: int) -> None:
    calls = 0
    decoder = made(steps=steps, start=start)

    def network(h: Tensor, label: Tensor, time: float) -> Tensor:
        nonlocal calls
        calls += 1
        return h

    decoder.network = network  # type: ignore[method-assign]
    decoder({"z": torch.zeros(24, 1, 8, 8)}, OWNER)
    assert calls == taken


def test_clean_latents_under_noise_have_the_levels_share_of_it() -> None:
    clean = torch.full((24, 1, 8, 8), 2.0)
    for decoder in (made(steps=10, start=0.7), made(FLOW, steps=10, start=0.7)):
        level = decoder.plan[3][1]
        signal, noise = (1 - level, level) if decoder.prediction == "flow" else (level**0.5, (1 - level) ** 0.5)
        z = decoder.noised(clean, OWNER, stream(0, "noise"))["z"]
        assert torch.equal(z, decoder.noised(clean, OWNER, stream(0, "noise"))["z"])
        torch.testing.assert_close(z.mean(), torch.tensor(2 * signal), rtol=0, atol=0.1)
        torch.testing.assert_close(z.std(), torch.tensor(noise), rtol=0.1, atol=0)


def test_modes_draw_the_steps_before_decoding() -> None:
    """Without strength: the prior. With it: images nearer the modes; the formula restated."""
    decoder = knows_the_data(made(V, steps=10, start=0.5))
    modes = CENTRES[OWNER, 0].view(24, 1, 8, 8)
    free = decoder.towards(modes, OWNER, stream(0, "z"), 0.0)
    torch.testing.assert_close(free["z"], decoder.prior(OWNER, stream(0, "z"))["z"], rtol=1e-3, atol=1e-3)
    drawn = decoder.towards(modes, OWNER, stream(0, "z"), 0.1)
    near = [(decoder(z, OWNER) - (modes / 2 + 0.5)).square().mean() for z in (free, drawn)]
    assert near[1] < 0.5 * near[0]
    one = knows_the_data(made(steps=2, start=0.5))
    (time, a, b), h = one.plan[0], torch.randn(24, 1, 8, 8, generator=stream(0, "z"))
    e = one.network(h, OWNER, time)
    e = e - (1 - a) ** 0.5 * 0.1 * (modes - (h - (1 - a) ** 0.5 * e) / a**0.5)
    wanted = b**0.5 * (h - (1 - a) ** 0.5 * e) / a**0.5 + (1 - b) ** 0.5 * e
    torch.testing.assert_close(one.towards(modes, OWNER, stream(0, "z"), 0.1)["z"], wanted, rtol=1e-3, atol=1e-3)


def test_modes_are_not_overshot_where_there_is_only_noise() -> None:
    """At ᾱ near 0 the first step must lead to the mode under noise, not thousands of times past it."""
    near_zero = {**V, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"}
    decoder = made(near_zero, steps=2, start=0.5)
    modes = CENTRES[OWNER, 0].view(24, 1, 8, 8)
    _, a, b = decoder.plan[0]
    assert a < 1e-6
    h = torch.randn(24, 1, 8, 8, generator=stream(0, "z"))
    drawn = decoder.towards(modes, OWNER, stream(0, "z"), 0.1)["z"]
    torch.testing.assert_close(drawn, b**0.5 * modes + (1 - b) ** 0.5 * h, rtol=1e-3, atol=1e-3)


def test_noise_of_the_steps_is_each_rows_own() -> None:
    """Fixed per row, standard normal, another for each row and step; a row's place among others does not matter."""
    decoder = made(steps=3, eta=1.0, noise_seed=4)
    z = decoder.prior(OWNER, stream(1, "z"))
    x = decoder(z, OWNER)
    order = torch.randperm(24, generator=stream(0, "order"))
    torch.testing.assert_close(decoder({"z": z["z"][order]}, OWNER[order]), x[order])
    noises = [home.diffusion.shuffled(z["z"], seed).flatten(1) for seed in (0, 1)]
    for noise in noises:
        assert abs(float(noise.mean())) < 0.1
        assert float(noise.std()) == pytest.approx(1, abs=0.05)
        assert float(torch.corrcoef(noise).fill_diagonal_(0).abs().max()) < 0.5
    for one, other in ((noises[0], noises[1]), (noises[0], z["z"].flatten(1))):
        assert abs(float((one * other).mean())) < 0.1


ONCE = {"_class_name": "LCMScheduler", "clip_sample": False}


def test_refusals(tiny_store: Any) -> None:
    once, noisy = made(ONCE, steps=1), made(steps=3, eta=0.5)
    for decoder, told in ((once, 'prediction = "linear", eta = 0.0'), (noisy, 'prediction = "epsilon", eta = 0.5')):
        with pytest.raises(ValueError, match=f"{told}: only deterministic steps, more than one"):
            decoder.encode(images(), OWNER)
        with pytest.raises(InputError, match=f'init = "real" encodes real images: {told}: .* Use init = "prior"'):
            initialise("real", decoder, (1, 1, 1), seed=0, store=tiny_store)
    for decoder in (once, made()):
        with pytest.raises(ValueError, match=r"start = 1\.0: nothing is left of a clean latent under all the noise"):
            decoder.noised(images(), OWNER, stream(0, "z"))
    for decoder in (made(), made(FLOW, start=0.5), made(start=0.5, skip="x0"), made(start=0.5, eta=0.5)):
        with pytest.raises(ValueError, match=r"modes guide the steps of DDIM that come before .* start below"):
            decoder.towards(images(), OWNER, stream(0, "z"), 0.1)
    for start in (0.0, 1.2, -1.0):
        with pytest.raises(ValueError, match=f"start = {start}: give the share of the steps to take, above 0"):
            made(start=start)
