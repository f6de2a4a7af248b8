"""Several styles of every stored image, by small learned networks that all classes share."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class Hallucinator(nn.Module):
    """One style: 3x3 convolution without padding → times a learned map, plus another → 3x3 transposed convolution.

    It starts near the identity, ``spread`` away from it in a direction that only ``number`` decides.
    """

    def __init__(self, image_shape: Sequence[int], number: int, spread: float) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.inward = nn.Conv2d(channels, channels, 3)
        self.outward = nn.ConvTranspose2d(channels, channels, 3)
        self.scale = nn.Parameter(torch.ones(channels, height - 2, width - 2))
        self.shift = nn.Parameter(torch.zeros(channels, height - 2, width - 2))
        rng = torch.Generator().manual_seed(number)
        for layer in (self.inward, self.outward):
            noise = spread * torch.randn(channels, channels, 3, 3, generator=rng)
            noise[range(channels), range(channels), 1, 1] += 1
            layer.weight = nn.Parameter(noise)
            layer.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` → the same."""
        out: Tensor = self.outward(self.scale * self.inward(x) + self.shift)
        return out


class HallucinatorsFormation(ModelMixin, ConfigMixin):
    """m styles of every image: ``(n, c, h, w)`` → ``(n·m, c, h, w)``; image i becomes outputs i·m … (i+1)·m − 1.

        x_ij = H_j(b_i),   H = transposed conv ∘ affine ∘ conv

    The stored images are *bases*; the styles are shared by all classes, learned with the set and counted in its bytes:
    2·c·(9c + 1) + 2·c·(h−2)(w−2) numbers each, 5,568 for 3 x 32 x 32. A row starts from one real image.

    Args:
        image_shape: ``(c, h, w)`` of the images; filled in from the data by recipes.
        num: m ≥ 1 styles.
        spread: standard deviation of the kernels around the identity at the start.

    Raises:
        ValueError: no style, images below 3 x 3, or (when called) images of another shape.

    *Reference*: Liu et al. 2022, "Dataset Distillation via Factorization", arXiv 2210.16774, §3.2.
    *Differs from the authors' code*: all styles of a base are used at each step, theirs draws one style per step;
    kernels start near the identity, so that a start from real images is one; the adversarial pair term is a matter of
    the objective and not here.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("liu2022haba",)
    packs: ClassVar[int] = 1
    """Real images that a row starts from."""

    @register_to_config
    def __init__(self, image_shape: Sequence[int], num: int = 5, spread: float = 0.05) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in image_shape)
        if num < 1 or min(self.shape[1:]) < 3:
            raise ValueError(f"num = {num}, images of {self.shape}: give at least 1 style and images of 3 x 3 or more")
        self.styles = nn.ModuleList(Hallucinator(self.shape, number, spread) for number in range(num))

    @property
    def expands(self) -> int:
        """How many images one image becomes: m."""
        return len(self.styles)

    @property
    def shared_bytes(self) -> int:
        """Bytes of all styles, which every class of the set shares."""
        return sum(value.numel() * value.element_size() for value in self.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Styled images ``(n·m, c, h, w)`` of bases ``(n, c, h, w)``."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"images of {tuple(x.shape[1:])}, and the styles were made for {self.shape}")
        return torch.stack([style(x) for style in self.styles], dim=1).flatten(0, 1)

    def pack(self, x: Tensor) -> Tensor:
        """A real image is a base as it is: ``(n, c, h, w)`` → the same."""
        return x
