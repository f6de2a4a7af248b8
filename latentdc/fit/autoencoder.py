"""How a convolutional autoencoder is trained: the recipe, and one step with its full state."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from diffusers import AutoencoderKL

from latentdc.data.store import ClassStore
from latentdc.errors import RecipeError
from latentdc.fit.training import Training, check_levels, falling, follow
from latentdc.portable.autoencoder import AutoencoderDecoder
from latentdc.seeding import global_seed, stream

_NORM_GROUPS = 8
_SCALE_IMAGES = 2000
"""Training images from which mean and deviation of the latents are taken."""


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Everything that decides an autoencoder besides data, seed and duration.

    With the posterior q(z|x) = N(m, v) of the encoder and x' decoded from a draw of it, x and x' in [-1, 1]:

    L = |x' - x|_1 + kl * KL(q(z|x) || N(0, 1)), both summed over an image and averaged over the batch.

    Raises:
        RecipeError: a value out of range.

    *Reference:* Kingma & Welling 2014, arXiv 1312.6114, eq. 10; Rombach et al. 2022, arXiv 2112.10752, §3.1.
    *Differs from the latter:* no perceptual and no adversarial term, both of which need more time than they repay at
    the sizes this is for.
    """

    kind: ClassVar[str] = "autoencoder"
    made_from: ClassVar[str] = ""
    cite: ClassVar[tuple[str, ...]] = ("rombach2022ldm",)

    latent_channels: int = 1
    """A latent has ``latent_channels * (h / f) * (w / f)`` numbers, f = 2 ** (levels - 1)."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Feature maps from fine to coarse; each level after the first halves height and width."""
    layers: int = 1
    """Residual blocks of each level of the encoder; the decoder has one more."""
    batch_size: int = 64
    rate: float = 2e-3
    constant: float = 0.5
    """Share of the run before the learning rate falls linearly to 0."""
    average: float = 0.999
    """Decay of the exponential average of the weights, which is what is kept."""
    kl: float = 0.05
    holdout: float = 0.1
    """Share of each class kept from training, on which the figures are measured."""

    def __post_init__(self) -> None:
        sizes = (self.latent_channels, self.layers, self.batch_size, *self.channels)
        if not self.channels or min(sizes) < 1 or self.rate <= 0 or self.kl < 0:
            raise RecipeError(
                f"latent_channels = {self.latent_channels}, channels = {self.channels}, layers = {self.layers}, "
                f"batch_size = {self.batch_size}, rate = {self.rate}, kl = {self.kl}: give sizes of at least 1, at "
                "least one level of channels, a rate above 0 and a weight kl of at least 0"
            )
        if not (0 <= self.constant < 1 and 0 <= self.average < 1 and 0 < self.holdout < 1):
            raise RecipeError(
                f"constant = {self.constant}, average = {self.average}, holdout = {self.holdout}: give shares in [0, 1)"
            )

    def training(self, store: ClassStore, *, seed: int, device: torch.device, bf16: bool) -> AutoencoderTraining:
        """The training at its start.

        Raises:
            RecipeError: the images' height or width cannot be halved as often as the channels ask.
        """
        return AutoencoderTraining(store, self, seed=seed, device=device, bf16=bf16)

    def config(self, image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Arguments of ``AutoencoderKL``."""
        levels = len(self.channels)
        return {
            "in_channels": image_shape[0],
            "out_channels": image_shape[0],
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "block_out_channels": list(self.channels),
            "layers_per_block": self.layers,
            "latent_channels": self.latent_channels,
            "norm_num_groups": math.gcd(_NORM_GROUPS, *self.channels),
            "sample_size": list(image_shape[1:]),
        }


class AutoencoderLosses(NamedTuple):
    """What one step saw, per image."""

    error: float
    """Sum of absolute differences, pixels in [-1, 1]."""
    divergence: float
    """KL of the posterior from the standard normal, in nats."""


class AutoencoderTraining(Training):
    """Autoencoder, its running average and the optimiser."""

    reconstructs = True

    def __init__(
        self, store: ClassStore, recipe: AutoencoderRecipe, *, seed: int, device: torch.device, bf16: bool
    ) -> None:
        self.recipe = recipe
        check_levels(store.spec.image_shape, recipe.channels)
        with global_seed(seed, "autoencoder-init"):
            self.model = cast(Any, AutoencoderKL)(**recipe.config(store.spec.image_shape))
        self.model.to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        adam = torch.optim.Adam(self.model.parameters(), recipe.rate, fused=True)
        nets = {"model": self.model, "average": self.average}
        super().__init__(store, nets, {"model": adam}, seed=seed, device=device, bf16=bf16)

    def step(self, number: int, progress: float) -> AutoencoderLosses:
        """One update of the weights and their average."""
        recipe, optimiser = self.recipe, self.optimisers["model"]
        optimiser.param_groups[0]["lr"] = recipe.rate * falling(progress, recipe.constant)
        rng = stream(self.seed, "autoencoder-step", number)
        batch = self.store.batch(torch.randint(len(self.store), (recipe.batch_size,), generator=rng))
        x = 2 * batch.x.to(self.device) - 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            posterior = self.model.encode(x).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=rng).to(self.device)
            made = self.model.decode(mean + (0.5 * log_variance).exp() * noise).sample.float()
        error = (made - x).abs().sum() / len(x)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / len(x)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(error + recipe.kl * divergence)
        optimiser.step()
        follow(self.average, self.model, number, recipe.average)
        return AutoencoderLosses(float(error.detach()), float(divergence.detach()))

    @torch.no_grad()
    def decoder(self) -> AutoencoderDecoder:
        """The averaged autoencoder; scale and shift give the latents of training images mean 0 and deviation 1."""
        spec = self.store.spec
        decoder = AutoencoderDecoder("AutoencoderKL", self.recipe.config(spec.image_shape), list(spec.image_shape))
        decoder.autoencoder.load_state_dict(self.average.state_dict())
        decoder.to(self.device).eval()
        picked = torch.randperm(len(self.store), generator=stream(self.seed, "autoencoder-scale"))[:_SCALE_IMAGES]
        batch = self.store.batch(picked)
        parts = zip(torch.split(batch.x.to(self.device), 250), torch.split(batch.owner, 250), strict=True)
        raw = torch.cat([decoder.encode(x, owner)["z"] for x, owner in parts])
        raw = raw / decoder.latent_scale + decoder.latent_shift
        spread = float(raw.std())
        scaled = {"scaling_factor": 1 / spread if spread > 0 else 1.0, "shift_factor": float(raw.mean())}
        ready: Any = AutoencoderDecoder(
            "AutoencoderKL", self.recipe.config(spec.image_shape) | scaled, list(spec.image_shape)
        )
        ready.load_state_dict(decoder.state_dict())
        ready.to(self.device).eval()
        return cast(AutoencoderDecoder, ready)
