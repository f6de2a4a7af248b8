"""The opponent of the generator: a spectrally normalised critic that is told the class by an inner product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

_EPS = 1e-8


class ProjectionCritic(nn.Module):
    """Score of an image given its class: v . f(x) + e_y . f(x), every layer with spectral norm 1.

    Args:
        image_shape: ``(c, h, w)``.
        num_classes: number of classes k.
        channels: feature maps from the finest to the coarsest level; every level halves height and width.

    *Reference:* Miyato & Koyama 2018, arXiv 1802.05637, eq. 4; Miyato et al. 2018, arXiv 1802.05957 (spectral norm);
    Karras et al. 2018, arXiv 1710.10196, sec. 3 (batch deviation as a feature map).
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inward = image_shape[0]
        for outward in channels:
            layers += [spectral_norm(nn.Conv2d(inward, outward, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
            inward = outward
        self.trunk = nn.Sequential(*layers)
        self.last = spectral_norm(nn.Conv2d(inward + 1, inward, 3, padding=1))
        self.score = spectral_norm(nn.Linear(inward, 1))
        self.classes = spectral_norm(nn.Embedding(num_classes, inward))

    def forward(self, x: Tensor, owner: Tensor, groups: int = 1) -> Tensor:
        """Scores ``(n,)`` of images ``(n, c, h, w)`` in [0, 1].

        Args:
            x: images, ``groups`` equally large sets one after the other.
            owner: class of each image ``(n,)``.
            groups: sets whose deviation is measured apart: real and generated images must not share theirs.
        """
        maps = self.trunk(2 * x - 1)
        sets = maps.unflatten(0, (groups, -1))
        spread = ((sets - sets.mean(1, keepdim=True)).square().mean(1) + _EPS).sqrt().mean(dim=(1, 2, 3))
        plane = spread.repeat_interleave(len(x) // groups)[:, None, None, None].expand(-1, 1, *maps.shape[2:])
        seen = functional.leaky_relu(self.last(torch.cat([maps, plane.to(maps.dtype)], dim=1)), 0.1)
        # Divided by the side, not the area: a plain mean would leave scores too small for a hinge at 1.
        features = seen.float().sum(dim=(2, 3)) / (seen.shape[2] * seen.shape[3]) ** 0.5
        scores: Tensor = self.score(features).squeeze(1) + (self.classes(owner) * features).sum(dim=1)
        return scores
