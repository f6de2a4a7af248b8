"""The decoder that decodes nothing: standardised pixels, so that pixel condensation is one more latent space."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor


class PixelsDecoder(ModelMixin, ConfigMixin):
    """Pixels as latents: x = mean + std · z, per channel, not clamped.

    Standardised latents are what the literature optimises, so published learning rates transfer. Images may leave
    [0, 1] while they are optimised; they are clamped on export only, since a clamp has no gradient where it acts.

    Args:
        image_shape: ``(c, h, w)``.
        mean: per-channel mean of the data in [0, 1], c entries.
        std: per-channel standard deviation of the data, c positive entries.

    Raises:
        ValueError: mean or std do not have c entries, or a std is not positive.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("zhao2023dm",)

    @register_to_config
    def __init__(self, image_shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in image_shape)
        channels = image_shape[0]
        if len(image_shape) != 3 or len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ValueError(
                f"image_shape = {tuple(image_shape)}, mean = {tuple(mean)}, std = {tuple(std)}: "
                "give (c, h, w), c means and c positive deviations"
            )
        self.register_buffer("offset", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("gain", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"x": (c, h, w)}``."""
        return {"x": self.image_shape}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)``."""
        return self.shape

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Standard normal noise, one image per entry of ``owner`` ``(n,)``, on the generator's device."""
        return {"x": torch.randn(len(owner), *self.image_shape, generator=rng, device=rng.device)}

    def encode(self, x: Tensor, owner: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Latents of images ``(n, c, h, w)`` in [0, 1]; exact inverse of the decoder up to rounding."""
        return {"x": (x - self.offset) / self.gain}

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:  # noqa: ARG002
        """Images ``(n, c, h, w)`` of latents ``{"x": (n, c, h, w)}``; ``owner`` does not matter here."""
        x: Tensor = self.offset + self.gain * z["x"]
        return x
