"""Several training images in the room of one: the spatial multi-formation."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from torch.nn import functional as F


class TilesFormation(ModelMixin, ConfigMixin):
    """Cuts each image into f × f tiles and enlarges each to the whole image: ``(n, c, h, w)`` → ``(n·f², c, h, w)``.

    Tiles are read row by row; image i becomes outputs ``i·f² … (i+1)·f² − 1``. Enlarging is bilinear, corners not
    aligned. Works after any decoder.

    Args:
        factor: f ≥ 1; it must divide the image's height and width.

    Raises:
        ValueError: a factor below one, or (when called) one that does not divide the image.

    *Reference*: Kim et al. 2022, "Dataset Condensation via Efficient Synthetic-Data Parameterization",
    arXiv 2205.14959, §4.
    *Differs from the authors' code*: a factor that does not divide the side is refused; theirs pads the image.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("kim2022idc",)

    @register_to_config
    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor = {factor}: give 1 or more")
        self.factor = int(factor)
        # diffusers loads a component only from a folder that holds weights, so there is one.
        self.register_buffer("one", torch.ones(1))

    @property
    def expands(self) -> int:
        """How many images one image becomes: f²."""
        return self.factor**2

    def _check(self, height: int, width: int) -> None:
        if height % self.factor or width % self.factor:
            fit = [f for f in range(1, min(height, width) + 1) if height % f == 0 and width % f == 0]
            raise ValueError(
                f"factor = {self.factor} does not divide images of {height} x {width}: "
                f"factors that do are {', '.join(map(str, fit))}; change it in [formation]"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Enlarged tiles ``(n·f², c, h, w)`` of images ``(n, c, h, w)``."""
        n, c, h, w = x.shape
        self._check(h, w)
        f = self.factor
        if f == 1:
            return x
        tiles = x.reshape(n, c, f, h // f, f, w // f).permute(0, 2, 4, 1, 3, 5)
        tiles = tiles.reshape(n * f * f, c, h // f, w // f)
        return F.interpolate(tiles, size=(h, w), mode="bilinear", align_corners=False)

    @torch.no_grad()
    def pack(self, x: Tensor) -> Tensor:
        """Shrinks f² images into the tiles of one: ``(n·f², c, h, w)`` → ``(n, c, h, w)``; the way to start from reals.

        Raises:
            ValueError: the number of images is not a multiple of f².
        """
        m, c, h, w = x.shape
        self._check(h, w)
        f = self.factor
        if m % self.expands:
            raise ValueError(f"{m} images cannot be packed by {self.expands}: give a multiple of {self.expands}")
        small = F.interpolate(x, size=(h // f, w // f), mode="area")
        small = small.reshape(m // self.expands, f, f, c, h // f, w // f)
        return small.permute(0, 3, 1, 4, 2, 5).reshape(m // self.expands, c, h, w)
