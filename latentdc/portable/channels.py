"""Planes of few channels in the room of one image: the channel multi-formation."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelsFormation(ModelMixin, ConfigMixin):
    """Reads each image as c / p planes of p channels and colours each by one learned map.

    ``(n, c, h, w)`` → ``(n·c/p, c, h, w)``:

        x_ij = W s_ij + b,   s_ij the j-th plane of image i,   W (c, p),  b (c,)

    W and b are shared by all images and classes, learned with the set, and counted in its bytes. They start as a plain
    repetition (a plane is a grey image). A grey data set has one plane per image already: nothing is gained there.

    Args:
        image_shape: ``(c, h, w)`` of the images; filled in from the data by recipes.
        per_plane: p, channels of a plane; it must divide c.

    Raises:
        ValueError: p does not divide c, or (when called) images of another number of channels.

    *Reference*: after "channel-wise multi-formation" (Zhou 2024, of which only the title could be read) and the
    single-channel bases of Liu et al. 2022, arXiv 2210.16774; the formulation is ours.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("kim2022idc", "liu2022haba")

    @register_to_config
    def __init__(self, image_shape: Sequence[int], per_plane: int = 1) -> None:
        super().__init__()
        self.channels, self.per_plane = int(image_shape[0]), int(per_plane)
        if self.per_plane < 1 or self.channels % self.per_plane:
            raise ValueError(
                f"per_plane = {per_plane} does not divide images of {self.channels} channels; change it in [formation]"
            )
        rows = torch.arange(self.channels)
        weight = torch.zeros(self.channels, self.per_plane)
        weight[rows, rows % self.per_plane] = 1
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(self.channels))

    @property
    def expands(self) -> int:
        """How many images one image becomes: c / p."""
        return self.channels // self.per_plane

    @property
    def shared_bytes(self) -> int:
        """Bytes of W and b, which every class of the set shares."""
        return sum(value.numel() * value.element_size() for value in self.parameters())

    def _check(self, channels: int) -> None:
        if channels != self.channels:
            raise ValueError(f"images of {channels} channels, and this formation was made for {self.channels}")

    def forward(self, x: Tensor) -> Tensor:
        """Coloured planes ``(n·c/p, c, h, w)`` of images ``(n, c, h, w)``."""
        n, c, h, w = x.shape
        self._check(c)
        planes = x.reshape(n * self.expands, self.per_plane, h, w)
        return F.conv2d(planes, self.weight[:, :, None, None], self.bias)

    @torch.no_grad()
    def pack(self, x: Tensor) -> Tensor:
        """c / p images as the planes of one, by least squares: ``(n·c/p, c, h, w)`` → ``(n, c, h, w)``.

        Raises:
            ValueError: the number of images is not a multiple of c / p.
        """
        m, c, h, w = x.shape
        self._check(c)
        if m % self.expands:
            raise ValueError(f"{m} images cannot be packed by {self.expands}: give a multiple of {self.expands}")
        back = torch.linalg.pinv(self.weight.double()).to(x.dtype)
        planes = torch.einsum("pc,nchw->nphw", back, x - self.bias.to(x.dtype)[:, None, None])
        return planes.reshape(m // self.expands, c, h, w)
