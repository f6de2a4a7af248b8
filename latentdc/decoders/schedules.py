"""The steps of a diffusion model as numbers, read off the configuration of a diffusers scheduler."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import diffusers

from latentdc.errors import InputError

STEPPED = ("DDIMScheduler", "DDPMScheduler", "FlowMatchEulerDiscreteScheduler")
"""Schedulers whose steps this library takes itself, any number of them."""
AT_ONCE = ("CMStochasticIterativeScheduler", "LCMScheduler", "EulerDiscreteScheduler")
"""Schedulers of models made for one step; with more steps they draw noise or keep state."""
_REFUSED = {
    "clip_sample": "clamping has no gradient where it acts",
    "clip_denoised": "clamping has no gradient where it acts",
    "thresholding": "clamping has no gradient where it acts",
    "stochastic_sampling": "the same latent would decode differently each time",
    "use_dynamic_shifting": "the steps would depend on the image's size; give shift = exp(mu) of yours",
}

Plan = tuple[str, list[list[float]]]
"""What the denoiser predicts and the steps, as ``DiffusionDecoder`` takes them."""


def plan_of(scheduler: Mapping[str, Any], steps: int) -> Plan:
    """The deterministic steps that a scheduler would take.

    Args:
        scheduler: its configuration, with ``_class_name``; entries that are missing have the class's default.
        steps: how many.

    Returns:
        What is predicted, and the steps from first to last: [time, ᾱ, ᾱ'] for DDIM (also for the betas of a
        ``DDPMScheduler``), [time, σ, σ'] for flow matching, [time, α, β, γ, δ] for a model of one step.

    Raises:
        InputError: a scheduler that clips or draws noise, one whose state changes from step to step, or a number of
            steps that it does not have.
    """
    name = str(scheduler.get("_class_name"))
    if name not in STEPPED and (name not in AT_ONCE or steps != 1):
        once = f" With steps = 1, {name} would do." if name in AT_ONCE else ""
        raise InputError(
            f'scheduler "{name}", steps = {steps}: it keeps state from step to step or draws noise, so that a step '
            "which is computed again in the backward pass gives other values and wrong gradients. Give a DDIMScheduler "
            f"with the same betas (DDIMScheduler.from_config(yours.config, clip_sample=False)).{once}"
        )
    made = _made("DDIMScheduler" if name == "DDPMScheduler" else name, scheduler)
    for key, reason in _REFUSED.items():
        if made.config.get(key):
            raise InputError(f"scheduler {name}: {key} is true (perhaps by default), but {reason}; set it to false.")
    if not 1 <= steps <= made.config.num_train_timesteps:
        raise InputError(f"steps = {steps}: {name} has 1 to {made.config.num_train_timesteps}.")
    if name in AT_ONCE:
        return "linear", [{"LCMScheduler": _lcm, "EulerDiscreteScheduler": _euler}.get(name, _consistency)(made)]
    return _flow(made, steps) if name == STEPPED[-1] else _ddim(made, steps)


def _made(name: str, scheduler: Mapping[str, Any]) -> Any:
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    try:
        return kind.from_config({key: value for key, value in scheduler.items() if key in known})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise InputError(f"scheduler {name}: diffusers cannot make it: {error}") from error


def _ddim(made: Any, steps: int) -> Plan:
    try:
        made.set_timesteps(steps)
    except ValueError as error:  # a spacing that diffusers only now finds unknown
        raise InputError(f"scheduler {type(made).__name__}: {error}") from error
    levels, last = made.alphas_cumprod.tolist(), float(made.final_alpha_cumprod)
    times = [int(time) for time in made.timesteps]
    if times[0] >= len(levels):
        raise InputError(f"steps = {steps} with steps_offset = {made.config.steps_offset}: {times[0]} is no step.")
    # The scheduler's own rule, also where its grid is not spaced like that.
    before = [time - made.config.num_train_timesteps // steps for time in times]
    plan = [[time, levels[time], levels[to] if to >= 0 else last] for time, to in zip(times, before, strict=True)]
    if made.config.prediction_type == "epsilon" and plan[0][1] == 0:
        raise InputError("scheduler: of pure noise (rescale_betas_zero_snr) epsilon tells nothing; predict v instead.")
    return str(made.config.prediction_type), plan


def _flow(made: Any, steps: int) -> Plan:
    made.set_timesteps(steps)
    sigmas = made.sigmas.tolist()
    return "flow", [list(step) for step in zip(made.timesteps.tolist(), sigmas[:-1], sigmas[1:], strict=True)]


def _consistency(made: Any) -> list[float]:
    made.set_timesteps(1)
    sigma = float(made.sigmas[0])
    keep, gain = (float(value) for value in made.get_scalings_for_boundary_condition(made.sigmas[0]))
    return [float(made.timesteps[0]), sigma, (sigma**2 + made.config.sigma_data**2) ** 0.5, gain, keep]


def _lcm(made: Any) -> list[float]:
    """denoised = c_out x0 + c_skip z with x0 = p z + q out, put together."""
    made.set_timesteps(1)
    time = int(made.timesteps[0])
    level = float(made.alphas_cumprod[time])
    keep, gain = made.get_scalings_for_boundary_condition_discrete(time)
    p, q = {
        "epsilon": (level**-0.5, -((1 - level) ** 0.5) / level**0.5),
        "sample": (0.0, 1.0),
        "v_prediction": (level**0.5, -((1 - level) ** 0.5)),
    }[made.config.prediction_type]
    return [time, 1.0, 1.0, gain * q, gain * p + keep]


def _euler(made: Any) -> list[float]:
    """One step of Euler from σ to 0: what distilled ("turbo") models take."""
    if made.config.prediction_type != "epsilon" or made.config.timestep_spacing != "trailing":
        raise InputError(
            'scheduler EulerDiscreteScheduler: one step from pure noise needs timestep_spacing = "trailing" and '
            f'prediction_type = "epsilon", this has "{made.config.timestep_spacing}", "{made.config.prediction_type}".'
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, about how diffusers reads a tensor
        made.set_timesteps(1)
    sigma, time = float(made.sigmas[0]), float(made.timesteps[0])
    end = float(made.sigmas[1])
    whole = int(time) if time.is_integer() else time
    return [whole, float(made.init_noise_sigma), (sigma**2 + 1) ** 0.5, end - sigma, 1.0]
