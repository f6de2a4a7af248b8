"""An autoencoder of diffusers as a decoder: torch, diffusers and the standard library only.

This file is copied into every bundle that uses it, so it imports nothing from latentdc.
"""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Sequence
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

LEVELS = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "decoder_block_out_channels",
    "AutoencoderDC": "decoder_block_out_channels",
    "VQModel": "block_out_channels",
}
"""Autoencoders that are understood, each with the config entry that has one number per level of resolution."""


class AutoencoderDecoder(ModelMixin, ConfigMixin):
    """Latent → image through the decoder half of a diffusers autoencoder; the class of a row does not matter.

    Latents live in the *scaled* space, the one a diffusion model over them sees, where they have about unit variance:
    x = D(z / scale + shift) / 2 + 1/2, D's range being [-1, 1]. Images are not clamped, since a clamp has no gradient
    where it acts. An image of one channel through a model of three is their mean (and enters as three copies); an image
    of three channels through a model of one is three copies (and enters as their mean).

    Args:
        model_class: ``AutoencoderKL``, ``AutoencoderTiny``, ``AutoencoderDC`` or ``VQModel``.
        model_config: its configuration, as in its ``config.json``.
        image_shape: ``(c, h, w)``, c is 1 or 3; h and w must be multiples of the model's scale of reduction.
        latent_scale: None for the configuration's ``scaling_factor``, divided by ``latents_std`` where it has these.
        latent_shift: None for the configuration's ``latents_mean`` or ``shift_factor``, or 0 where it has neither.
        quantise: for a VQModel, put latents on the code book before decoding. Its gradient is then the straight-through
            one, which is biased; without, latents are decoded as they are and the gradient is exact.

    Raises:
        ValueError: another class, a shape the model cannot make, or settings that the model does not have.

    *Reference:* Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
    arXiv 2112.10752, §3.1 and appendix G.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("rombach2022ldm",)
    heavy: ClassVar[bool] = True
    """One row may fill the memory: where no chunk is given, it is chosen by what is free."""
    lossy: ClassVar[bool] = True
    """Decoding what ``encode`` gives is near the image, not equal to it."""

    @register_to_config
    def __init__(
        self,
        model_class: str,
        model_config: dict[str, Any],
        image_shape: Sequence[int],
        latent_scale: float | None = None,
        latent_shift: float | None = None,
        quantise: bool = False,
    ) -> None:
        super().__init__()
        if model_class not in LEVELS:
            raise ValueError(f'model_class = "{model_class}": known autoencoders are {", ".join(LEVELS)}')
        self.shape = tuple(int(side) for side in image_shape)
        self.autoencoder = getattr(diffusers, model_class).from_config(dict(model_config))
        config = self.autoencoder.config
        if quantise and model_class != "VQModel":
            raise ValueError(f"quantise = True: a {model_class} has no code book; only a VQModel quantises")
        if config.get("lookup_from_codebook"):
            raise ValueError("model_config: with lookup_from_codebook latents are indices, which cannot be learned")
        self.quantise = bool(quantise)
        self.latent_scale = self._scale() if latent_scale is None else float(latent_scale)
        self.latent_shift = self._shift() if latent_shift is None else float(latent_shift)
        self.model_channels = int(config.get("out_channels", config.in_channels))
        self.latent_shape = self._latent_shape(model_class)
        for name, value in (("latents_std", self.latent_scale), ("latents_mean", self.latent_shift)):
            if isinstance(value, list) and len(value) != self.latent_shape[0]:
                raise ValueError(f"model_config: {name} has {len(value)} numbers for {self.latent_shape[0]} channels")

    def _scale(self) -> float | list[float]:
        """``scaling_factor``, divided by each channel's deviation where the configuration knows them."""
        config = self.autoencoder.config
        stds = config.get("latents_std")
        return [float(config.scaling_factor / std) for std in stds] if stds else float(config.scaling_factor)

    def _shift(self) -> float | list[float]:
        """The mean of each channel where the configuration knows them, else ``shift_factor``."""
        means = self.autoencoder.config.get("latents_mean")
        return [float(mean) for mean in means] if means else float(self.autoencoder.config.get("shift_factor") or 0.0)

    def _latent_shape(self, model_class: str) -> tuple[int, ...]:
        """Read off the configuration, since decoding an image to see its size may take seconds and gigabytes."""
        config = self.autoencoder.config
        factor = 2 ** (len(config[LEVELS[model_class]]) - 1)
        if model_class == "AutoencoderTiny":
            factor = config.upsampling_scaling_factor ** (len(config[LEVELS[model_class]]) - 1)
        if len(self.shape) != 3 or any(side % factor or side < factor for side in self.shape[1:]):
            raise ValueError(
                f"image_shape = {self.shape}: this {model_class} reduces height and width {factor} times; give "
                f"(c, h, w) with h and w multiples of {factor}"
            )
        if self.shape[0] != self.model_channels and {self.shape[0], self.model_channels} != {1, 3}:
            raise ValueError(
                f"image_shape = {self.shape}: this {model_class} makes {self.model_channels} channels; give as many, "
                "or 1 for 3, or 3 for 1"
            )
        channels = config.get("vq_embed_dim") or config.latent_channels
        return (int(channels), self.shape[1] // factor, self.shape[2] // factor)

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"z": (latent channels, h / factor, w / factor)}``."""
        return {"z": self.latent_shape}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Standard normal noise in the scaled space, one per entry of ``owner`` ``(n,)``, on the generator's device.

        It has the variance of encoded images, not their structure: better starts are encoded images.
        """
        shape = (len(owner), *self.latent_shape)
        draw = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return {"z": draw.to(owner.device)}

    def encode(self, x: Tensor, owner: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Scaled latents of images ``(n, c, h, w)`` in [0, 1]: the posterior's mean, or what precedes the code book."""
        x = fit_channels(2 * x - 1, int(self.autoencoder.config.in_channels))
        out = self.autoencoder.encode(x)
        if "latent_dist" in out:
            raw: Tensor = out.latent_dist.mode()
        else:
            raw = out.latents if "latents" in out else out.latent
        return {"z": (raw - per_channel(self.latent_shift, raw)) * per_channel(self.latent_scale, raw)}

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:  # noqa: ARG002
        """Images ``(n, c, h, w)``, nominally in [0, 1], of latents ``{"z": (n, *latent shape)}``."""
        raw = z["z"] / per_channel(self.latent_scale, z["z"]) + per_channel(self.latent_shift, z["z"])
        if not len(raw):  # attention over no rows is not defined everywhere
            return raw.new_zeros(0, *self.shape)
        exact = {"force_not_quantize": not self.quantise} if "num_vq_embeddings" in self.autoencoder.config else {}
        x = self.autoencoder.decode(raw, return_dict=False, **exact)[0]
        return fit_channels(x / 2 + 0.5, self.shape[0])


def per_channel(value: float | list[float], like: Tensor) -> float | Tensor:
    """One number for each channel of ``(n, c, h, w)``, or the same for all."""
    return (
        torch.tensor(value, dtype=like.dtype, device=like.device)[:, None, None] if isinstance(value, list) else value
    )


def fit_channels(x: Tensor, channels: int) -> Tensor:
    """``(n, c, h, w)`` with ``channels`` channels: as it is, the mean of all, or copies of the only one."""
    if x.shape[1] == channels:
        return x
    return x.mean(1, keepdim=True) if channels == 1 else x.expand(-1, channels, -1, -1)
