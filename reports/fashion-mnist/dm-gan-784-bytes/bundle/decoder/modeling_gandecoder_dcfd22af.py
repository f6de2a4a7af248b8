"""A small class-conditional convolutional generator as a diffusers component: torch and diffusers only.

This file is copied into every bundle that uses it, so it imports nothing from latentdc.
"""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional


class ModulatedNorm(nn.Module):
    """Batch normalisation whose scale and shift are affine in a condition ``(n, d)``; running statistics in eval mode.

    out = (1 + A c) * (x - mean) / sqrt(var + eps) + B c

    *Reference:* Chen et al. 2019, "On Self Modulation for Generative Adversarial Networks", arXiv 1810.01365, eq. 2.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.film = nn.Linear(condition, 2 * channels)
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise ``(n, c, h, w)`` and modulate each row by its condition."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class UpBlock(nn.Module):
    """norm → relu → stride-2 transposed convolution → norm → relu → 3x3 convolution, plus an upsampled shortcut."""

    def __init__(self, inward: int, outward: int, condition: int) -> None:
        super().__init__()
        self.norm_up = ModulatedNorm(inward, condition)
        self.up = nn.ConvTranspose2d(inward, outward, 4, stride=2, padding=1, bias=False)
        self.norm_mix = ModulatedNorm(outward, condition)
        self.mix = nn.Conv2d(outward, outward, 3, padding=1, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(n, inward, h, w)`` → ``(n, outward, 2h, 2w)``."""
        x = self.up(functional.relu(self.norm_up(x, condition)))
        out: Tensor = x + self.mix(functional.relu(self.norm_mix(x, condition)))
        return out


class GanDecoder(ModelMixin, ConfigMixin):
    """z, class → image: deterministic and row-independent in eval mode; latents are standard normal.

    Args:
        image_shape: ``(c, h, w)``; h and w must be divisible by ``2 ** (len(channels) - 1)``.
        num_classes: number of classes k.
        z_dim: numbers in one latent.
        channels: feature maps from the coarsest to the finest level; every further level doubles height and width.
        embed_dim: numbers in a class embedding.

    Raises:
        ValueError: height or width not divisible as said, or a size below 1.

    *Reference:* Miyato & Koyama 2018, arXiv 1802.05637 (class-conditional GAN); Chen et al. 2019, arXiv 1810.01365.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("miyato2018projection", "chen2019selfmodulation")

    @register_to_config
    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        z_dim: int = 16,
        channels: Sequence[int] = (128, 64, 32),
        embed_dim: int = 16,
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes = int(z_dim), int(num_classes)
        self.shape = tuple(int(side) for side in image_shape)
        depth, height, width = self.shape
        factor = 2 ** (len(channels) - 1)
        if len(channels) < 1 or height % factor or width % factor:
            raise ValueError(
                f"image_shape {tuple(image_shape)} with {len(channels)} levels of channels: height and width must be "
                f"divisible by {factor}; give fewer channels or another size."
            )
        if min(z_dim, num_classes, embed_dim, *channels) < 1:
            raise ValueError("z_dim, num_classes, embed_dim and every entry of channels must be at least 1.")
        self.base = (channels[0], height // factor, width // factor)
        condition = z_dim + embed_dim
        self.embed = nn.Embedding(num_classes, embed_dim)
        self.first = nn.Linear(condition, channels[0] * self.base[1] * self.base[2])
        self.blocks = nn.ModuleList(UpBlock(inward, outward, condition) for inward, outward in pairwise(channels))
        self.norm_out = ModulatedNorm(channels[-1], condition)
        self.out = nn.Conv2d(channels[-1], depth, 3, padding=1)

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each latent key for one row: ``{"z": (z_dim,)}``."""
        return {"z": (self.z_dim,)}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One standard normal latent per entry of ``owner`` ``(n,)``, drawn on the generator's device."""
        shape = (len(owner), *self.latent_shapes["z"])
        draw = torch.randn(shape, generator=rng, device=rng.device, dtype=torch.float32)
        return {"z": draw.to(owner.device)}

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` in [0, 1] of latents ``{"z": (n, z_dim)}`` for classes ``owner`` ``(n,)``."""
        condition = torch.cat([z["z"], self.embed(owner)], dim=1)
        x = self.first(condition).unflatten(1, self.base)
        for block in self.blocks:
            x = block(x, condition)
        out: Tensor = torch.sigmoid(self.out(functional.relu(self.norm_out(x, condition))))
        return out
