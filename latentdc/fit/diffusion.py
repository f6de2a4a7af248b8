"""How a small class-conditional diffusion model is trained: the recipe, and one step with its full state."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor
from torch.nn import functional

from latentdc.data.store import ClassStore
from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.decoders.reference import resolve_decoder
from latentdc.decoders.schedules import plan_of
from latentdc.errors import InputError, RecipeError
from latentdc.fit.training import Training, check_levels, falling, follow
from latentdc.networks.pool import fingerprint
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.seeding import global_seed, stream

_NORM_GROUPS = 8
_HEAD = 8
"""Channels of an attention head."""
_CHUNK = 500
_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
}
"""Few steps from pure noise need a velocity and the last time step among them (Lin et al. 2024, arXiv 2305.08891)."""


@dataclass(frozen=True)
class DiffusionRecipe:
    """Everything that decides a diffusion model besides data, seed and duration.

    With data x (latents of an autoencoder, or pixels in [-1, 1]), a time t, noise e and h = a x + s e
    (a = sqrt of alpha bar of t, s = sqrt of 1 - a^2), the UNet learns the velocity v = a e - s x:

    L = E |unet(h, t, y) - (a e - s x)|^2

    where the class y is replaced by "none" with probability ``drop``, so that decoding can be guided.

    Raises:
        RecipeError: a value out of range.

    *Reference:* Ho et al. 2020, arXiv 2006.11239; Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17 (cosine schedule);
    Salimans & Ho 2022, arXiv 2202.00512, §4 (velocity); Ho & Salimans 2022, arXiv 2207.12598 (no class);
    Rombach et al. 2022, arXiv 2112.10752 (in latents).
    """

    kind: ClassVar[str] = "diffusion"
    cite: ClassVar[tuple[str, ...]] = ("rombach2022ldm", "song2021ddim", "ho2022guidance")

    autoencoder: str = ""
    """Whose latents are modelled: a folder, a shipped name, or ``autoencoder`` for the shipped one that fits; empty for
    pixels."""
    channels: tuple[int, ...] = (64,)
    """Feature maps from fine to coarse; each level after the first halves height and width."""
    layers: int = 2
    """Residual blocks of each level down, one more up; attention at the coarsest level, in the middle."""
    num_steps: int = 10
    """Steps of DDIM that the decoder takes."""
    guidance: float = 1.0
    """Of the decoder; 1 for none."""
    drop: float = 0.1
    batch_size: int = 128
    rate: float = 1e-3
    constant: float = 0.5
    """Share of the run before the learning rate falls linearly to 0."""
    average: float = 0.999
    """Decay of the exponential average of the weights, which is what is kept."""
    holdout: float = 0.1
    """Share of each class kept from training, on which the figures are measured."""

    def __post_init__(self) -> None:
        sizes = (self.layers, self.batch_size, self.num_steps, *self.channels)
        if not self.channels or min(sizes) < 1 or self.rate <= 0 or self.num_steps > 1000:
            raise RecipeError(
                f"channels = {self.channels}, layers = {self.layers}, num_steps = {self.num_steps}, batch_size = "
                f"{self.batch_size}, rate = {self.rate}: give sizes of at least 1, at least one level of channels, at "
                "most 1000 steps and a rate above 0"
            )
        if any(width % _HEAD for width in self.channels):
            raise RecipeError(f"channels = {self.channels}: give multiples of {_HEAD} (--channels)")
        shares = (self.constant, self.average, self.drop)
        if not all(0 <= share < 1 for share in shares) or not 0 < self.holdout < 1:
            raise RecipeError(
                f"constant = {self.constant}, average = {self.average}, drop = {self.drop}, holdout = {self.holdout}: "
                "give shares in [0, 1)"
            )

    @property
    def made_from(self) -> str:
        """The autoencoder."""
        return self.autoencoder

    def training(self, store: ClassStore, *, seed: int, device: torch.device, bf16: bool) -> DiffusionTraining:
        """The training at its start; encodes all images.

        Raises:
            InputError: the autoencoder is not there, or is none.
            RecipeError: the latents' height or width cannot be halved as often as the channels ask.
        """
        return DiffusionTraining(store, self, seed=seed, device=device, bf16=bf16)

    def config(self, shape: tuple[int, int, int], num_classes: int) -> dict[str, Any]:
        """Arguments of ``UNet2DModel`` over tensors of this shape."""
        levels = len(self.channels)
        return {
            "sample_size": list(shape[1:]),
            "in_channels": shape[0],
            "out_channels": shape[0],
            "down_block_types": ["DownBlock2D"] * levels,
            "up_block_types": ["UpBlock2D"] * levels,
            "block_out_channels": list(self.channels),
            "layers_per_block": self.layers,
            "norm_num_groups": math.gcd(_NORM_GROUPS, *self.channels),
            "attention_head_dim": _HEAD,
            "num_class_embeds": num_classes + 1,
        }


class DiffusionLosses(NamedTuple):
    """What one step saw."""

    velocity: float
    """Mean squared error of the velocity, whose own variance is about 1."""


class DiffusionTraining(Training):
    """UNet, its running average and the optimiser, over data that are encoded once."""

    def __init__(
        self, store: ClassStore, recipe: DiffusionRecipe, *, seed: int, device: torch.device, bf16: bool
    ) -> None:
        self.recipe = recipe
        self.autoencoder = _autoencoder(recipe, store, device)
        self.data = _encoded(self.autoencoder, store, device)
        shape = (int(self.data.shape[1]), int(self.data.shape[2]), int(self.data.shape[3]))
        check_levels(shape, recipe.channels)
        self.unet_config = recipe.config(shape, store.spec.num_classes)
        with global_seed(seed, "diffusion-init"):
            self.unet = cast(Any, UNet2DModel)(**self.unet_config)
        self.unet.to(device).train()
        self.average = copy.deepcopy(self.unet).requires_grad_(False).eval()
        self.levels = DDIMScheduler.from_config(_SCHEDULER).alphas_cumprod.to(device)
        adam = torch.optim.Adam(self.unet.parameters(), recipe.rate, fused=True)
        nets = {"unet": self.unet, "average": self.average}
        super().__init__(store, nets, {"unet": adam}, seed=seed, device=device, bf16=bf16)

    def origin(self) -> dict[str, Any]:
        """The autoencoder's weights."""
        return {} if self.autoencoder is None else {"autoencoder_sha256": fingerprint(self.autoencoder)}

    def step(self, number: int, progress: float) -> DiffusionLosses:
        """One update of the weights and their average."""
        recipe, optimiser = self.recipe, self.optimisers["unet"]
        optimiser.param_groups[0]["lr"] = recipe.rate * falling(progress, recipe.constant)
        rng = stream(self.seed, "diffusion-step", number)
        size = recipe.batch_size
        rows = torch.randint(len(self.data), (size,), generator=rng)
        times = torch.randint(len(self.levels), (size,), generator=rng).to(self.device)
        noise = torch.randn((size, *self.data.shape[1:]), generator=rng).to(self.device)
        none = (torch.rand(size, generator=rng) < recipe.drop).to(self.device)
        x, owner = self.data[rows.to(self.device)], self.store.labels[rows].to(self.device)
        label = owner.masked_fill(none, self.store.spec.num_classes)
        level = self.levels[times][:, None, None, None]
        a, s = level.sqrt(), (1 - level).sqrt()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            said = self.unet(a * x + s * noise, times, class_labels=label).sample.float()
        loss = functional.mse_loss(said, a * noise - s * x)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        follow(self.average, self.unet, number, recipe.average)
        return DiffusionLosses(float(loss.detach()))

    @torch.no_grad()
    def decoder(self) -> DiffusionDecoder:
        """The averaged model with its steps and its autoencoder."""
        spec = self.store.spec
        prediction, plan = plan_of(_SCHEDULER, self.recipe.num_steps)
        inner: Mapping[str, Any] = {}
        if self.autoencoder is not None:
            known = self.autoencoder.config
            config = dict(known["model_config"])
            if known["latent_scale"] is not None:  # in place of what the model's own configuration says
                config |= {"scaling_factor": known["latent_scale"], "latents_std": None}
            if known["latent_shift"] is not None:
                config |= {"shift_factor": known["latent_shift"], "latents_mean": None}
            inner = {"autoencoder_class": known["model_class"], "autoencoder_config": config}
        decoder: Any = DiffusionDecoder(
            "UNet2DModel",
            self.unet_config,
            list(spec.image_shape),
            prediction,
            plan,
            spec.num_classes,
            guidance=self.recipe.guidance,
            null_class=spec.num_classes,
            **inner,
        )
        decoder.denoiser.load_state_dict(self.average.state_dict())
        if self.autoencoder is not None:
            decoder.autoencoder.load_state_dict(self.autoencoder.autoencoder.state_dict())
        decoder.to(self.device).eval()
        return cast(DiffusionDecoder, decoder)


def _autoencoder(recipe: DiffusionRecipe, store: ClassStore, device: torch.device) -> AutoencoderDecoder | None:
    if not recipe.autoencoder:
        return None
    decoder = resolve_decoder(recipe.autoencoder, store.spec)
    if not isinstance(decoder, AutoencoderDecoder):
        raise InputError(
            f'autoencoder = "{recipe.autoencoder}": is a {type(decoder).__name__}; give one that `latentdc fit '
            "autoencoder` or diffusers wrote (--autoencoder), or leave it out to model pixels."
        )
    return cast(AutoencoderDecoder, decoder.to(device).eval())


@torch.no_grad()
def _encoded(autoencoder: AutoencoderDecoder | None, store: ClassStore, device: torch.device) -> Tensor:
    """What is modelled, for every image of the store: scaled latents, or pixels in [-1, 1]."""
    parts = []
    for images in torch.split(store.images, _CHUNK):
        x = images.to(device).float() / 255
        parts.append(2 * x - 1 if autoencoder is None else autoencoder.encode(x)["z"])
    return torch.cat(parts)
