"""Our steps are the schedulers' own, bit for bit; what keeps state, clips or draws noise is refused."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from tiny_models import DDIM, FLOW

from latentdc.decoders.schedules import plan_of
from latentdc.errors import InputError
from latentdc.portable.diffusion import ddim_step, flow_step
from latentdc.seeding import stream


def network(h: torch.Tensor, time: float) -> torch.Tensor:
    """Something that is not linear and depends on the time."""
    return torch.sin(3 * h + time / 300)


def start(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 1, 4, 4, generator=stream(0, "steps")).to(dtype)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    ("steps", "betas"),
    [
        (1, {}),
        (7, {"set_alpha_to_one": False, "steps_offset": 1}),
        (10, {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}),
        (50, {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_is_the_schedulers(prediction: str, spacing: str, steps: int, betas: dict[str, Any], eta: float) -> None:
    config = {**DDIM, **betas, "prediction_type": prediction, "timestep_spacing": spacing}
    scheduler = diffusers.DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    kind, plan = plan_of(config, steps)
    assert (kind, [step[0] for step in plan]) == (prediction, scheduler.timesteps.tolist())
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        h = theirs = start(dtype)
        for (time, *levels), t in zip(plan, scheduler.timesteps, strict=True):
            noise = start(dtype).flip(-1) if eta else None
            theirs = scheduler.step(network(theirs, t), t, theirs, eta=eta, variance_noise=noise).prev_sample
            h = ddim_step(network(h, torch.tensor(time)), h, levels, kind, eta=eta, noise=noise)
            assert torch.equal(h, theirs)


@pytest.mark.parametrize("steps", [1, 4, 10])
@pytest.mark.parametrize("settings", [{}, {"shift": 3.0}, {"use_karras_sigmas": True}, {"shift_terminal": 0.1}])
def test_flow_is_the_schedulers(steps: int, settings: dict[str, Any]) -> None:
    if steps == 1 and len(settings) and "shift" not in settings:
        return  # the scheduler itself cannot spread one step so
    config = {**FLOW, **settings}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    kind, plan = plan_of(config, steps)
    assert kind == "flow"
    for dtype in (torch.float32, torch.bfloat16):
        scheduler.set_timesteps(steps)
        assert [step[0] for step in plan] == scheduler.timesteps.tolist()
        h = theirs = start(dtype)
        for (time, *levels), t in zip(plan, scheduler.timesteps, strict=True):
            theirs = scheduler.step(network(theirs, t), t, theirs).prev_sample
            h = flow_step(network(h, torch.tensor(time)), h, levels)
            assert torch.equal(h, theirs)


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "CMStochasticIterativeScheduler", "clip_denoised": False},
        {"_class_name": "LCMScheduler", "clip_sample": False},
        {"_class_name": "LCMScheduler", "prediction_type": "v_prediction"},
        {"_class_name": "LCMScheduler", "prediction_type": "sample"},
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_one_step_models_agree_with_their_scheduler(config: dict[str, Any]) -> None:
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(1)
    t = scheduler.timesteps[0]
    z = start() * scheduler.init_noise_sigma
    wanted = scheduler.step(network(scheduler.scale_model_input(z, t), t), t, z).prev_sample
    kind, [(time, scale, divisor, gain, keep)] = plan_of(config, 1)
    h = scale * start()
    assert kind == "linear"
    torch.testing.assert_close(gain * network(h / divisor, time) + keep * h, wanted, rtol=1e-4, atol=1e-4)


def test_ddpm_betas_are_stepped_by_ddim() -> None:
    config = {"_class_name": "DDPMScheduler", "clip_sample": False, "variance_type": "learned_range"}
    assert plan_of(config, 5) == plan_of(DDIM, 5)


@pytest.mark.parametrize(
    ("config", "steps", "message"),
    [
        ({"_class_name": "PNDMScheduler"}, 10, r'"PNDMScheduler", steps = 10: it keeps state.*Give a DDIMScheduler'),
        ({"_class_name": "LCMScheduler"}, 2, r"draws noise.*With steps = 1, LCMScheduler would do"),
        ({}, 2, r'scheduler "None"'),
        ({"_class_name": "DDIMScheduler"}, 2, "clip_sample is true .*clamping has no gradient .*set it to false"),
        ({**DDIM, "thresholding": True}, 2, "thresholding is true"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, 1, "clip_denoised is true"),
        ({**FLOW, "stochastic_sampling": True}, 2, "stochastic_sampling is true .*decode differently each time"),
        ({**FLOW, "use_dynamic_shifting": True}, 2, r"use_dynamic_shifting is true .*give shift = exp\(mu\)"),
        (DDIM, 0, "steps = 0: DDIMScheduler has 1 to 1000"),
        (DDIM, 1001, "steps = 1001: DDIMScheduler has 1 to 1000"),
        ({**DDIM, "beta_schedule": "rising"}, 2, "diffusers cannot make it: rising is not implemented"),
        (
            {**DDIM, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            2,
            "of pure noise .* epsilon tells nothing; predict v instead",
        ),
        ({**DDIM, "timestep_spacing": "even"}, 2, "scheduler DDIMScheduler: even is not supported"),
        ({**DDIM, "steps_offset": 5}, 1000, "steps_offset = 5: 1004 is no step"),
        ({"_class_name": "EulerDiscreteScheduler"}, 1, 'needs timestep_spacing = "trailing".* this has "linspace"'),
    ],
)
def test_refused_schedulers(config: dict[str, Any], steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(config, steps)
