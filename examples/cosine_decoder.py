"""The decoder of ``own_decoder.py``: an image is a sum of a few smooth cosine waves."""

import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor


class CosineDecoder(ModelMixin, ConfigMixin):
    """x = 0.5 + B_h z B_wᵀ with the ``keep`` lowest cosine waves along each axis.

    Args:
        image_shape: ``(c, h, w)``.
        keep: waves along each axis; a latent has c · keep · keep numbers.
    """

    @register_to_config
    def __init__(self, image_shape: Sequence[int], keep: int = 6) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image_shape = (channels, height, width)
        self.latent_shapes = {"waves": (channels, keep, keep)}
        self.register_buffer("rows", _waves(height, keep))
        self.register_buffer("columns", _waves(width, keep))

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Standard normal coefficients."""
        return {"waves": torch.randn(len(owner), *self.latent_shapes["waves"], generator=rng)}

    def encode(self, x: Tensor, owner: Tensor | None = None) -> dict[str, Tensor]:
        """The projection of images on the waves: the waves are orthonormal."""
        del owner
        return {"waves": self.rows.T @ (x - 0.5) @ self.columns}

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)``."""
        del owner
        return 0.5 + self.rows @ z["waves"] @ self.columns.T


def _waves(side: int, keep: int) -> Tensor:
    """Orthonormal cosine waves ``(side, keep)``."""
    place = (torch.arange(side) + 0.5) / side
    waves = torch.cos(math.pi * place[:, None] * torch.arange(keep))
    return waves / waves.norm(dim=0)
