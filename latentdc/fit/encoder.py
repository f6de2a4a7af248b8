"""Images → latents, used only while a generator is fitted: it keeps every real image within the generator's reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Encoder(nn.Module):
    """Mean and log-variance of a latent, given an image and its class."""

    def __init__(self, image_shape: Sequence[int], num_classes: int, z_dim: int, width: int = 32) -> None:
        super().__init__()
        depth, height, width_px = image_shape
        self.num_classes = num_classes
        self.trunk = nn.Sequential(
            nn.Conv2d(depth + num_classes, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (width_px // 4), 2 * z_dim),
        )

    def forward(self, x: Tensor, owner: Tensor) -> Tensor:
        """Codes ``(n, 2 z_dim)`` (means, then log-variances) of images ``(n, c, h, w)``."""
        planes = functional.one_hot(owner, self.num_classes).to(x.dtype)[:, :, None, None]
        code: Tensor = self.trunk(torch.cat([x, planes.expand(-1, -1, *x.shape[2:])], dim=1))
        return code.float()


def reparameterise(code: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """(latents drawn from the codes, mean over rows of KL(N(m, v) || N(0, 1))).

    z = m + exp(l / 2) * noise;  KL = 1/2 sum(m^2 + e^l - 1 - l)

    *Reference:* Kingma & Welling 2014, arXiv 1312.6114, eq. 10.
    """
    mean, log_variance = code.chunk(2, dim=1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
    return mean + (0.5 * log_variance).exp() * noise, divergence
