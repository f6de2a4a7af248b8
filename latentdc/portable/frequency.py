"""Images as a few coefficients of the cosine transform, each class keeping those that matter most to it.

A decoder and not a formation: a stored row is the coefficients of one image, not an image that is to become several.
"""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor


class FrequencyDecoder(ModelMixin, ConfigMixin):
    """x = mean + std · DCT⁻¹( f at the positions of the class's mask, 0 elsewhere ), orthonormal DCT-II per channel.

    A class keeps m of its h·w frequencies, the same in every channel: at first the lowest, after ``adapt`` those whose
    coefficients vary most over the class's real images. The masks are stored with the set and counted in its bytes.

    Args:
        image_shape: ``(c, h, w)``; filled in from the data by recipes, as are the next three.
        mean: per-channel mean of the data in [0, 1].
        std: per-channel standard deviation of the data.
        num_classes: number of classes k.
        num_coefficients: m, at most h·w.

    Raises:
        ValueError: statistics that do not fit the channels, no class, or m outside [1, h·w].

    *Reference*: Shin et al. 2023, "Frequency Domain-based Dataset Distillation", arXiv 2311.08819, §3.
    *Differs from the authors' code*: the masks' positions are counted as bytes; theirs are not.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("shin2023fred",)

    @register_to_config
    def __init__(
        self,
        image_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        num_classes: int,
        num_coefficients: int = 64,
    ) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in image_shape)
        channels, height, width = self.shape
        if len(mean) != channels or len(std) != channels or min(std) <= 0 or num_classes < 1:
            raise ValueError(
                f"mean = {tuple(mean)}, std = {tuple(std)}, num_classes = {num_classes}: give {channels} means, as "
                "many positive deviations, and at least 1 class"
            )
        if not 1 <= num_coefficients <= height * width:
            raise ValueError(
                f"num_coefficients = {num_coefficients}: images of {height} x {width} have {height * width}; give 1 to "
                "that many; change it in [decoder]"
            )
        self.register_buffer("offset", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("gain", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))
        lowest = _by_frequency(height, width)[: int(num_coefficients)]
        smallest = torch.int16 if height * width <= torch.iinfo(torch.int16).max else torch.int32
        self.register_buffer("mask", lowest.to(smallest).repeat(int(num_classes), 1))
        self.register_buffer("rows", _cosines(height), persistent=False)
        self.register_buffer("columns", _cosines(width), persistent=False)

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"f": (c, m)}``."""
        return {"f": (self.shape[0], self.mask.shape[1])}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)``."""
        return self.shape

    @property
    def shared_bytes(self) -> int:
        """Bytes of all classes' masks."""
        return int(self.mask.numel() * self.mask.element_size())

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Standard normal coefficients, one row per entry of ``owner`` ``(n,)``, on the generator's device."""
        return {"f": torch.randn(len(owner), *self.latent_shapes["f"], generator=rng, device=rng.device)}

    def _places(self, owner: Tensor) -> Tensor:
        """Positions in h·w of every coefficient ``(n, c, m)``."""
        kept: Tensor = self.mask[owner].long()[:, None]
        return kept.expand(-1, self.shape[0], -1)

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` of coefficients ``{"f": (n, c, m)}`` for classes ``owner`` ``(n,)``."""
        _, height, width = self.shape
        flat = z["f"].new_zeros(*z["f"].shape[:2], height * width).scatter(2, self._places(owner), z["f"])
        x: Tensor = self.offset + self.gain * (self.rows.T @ flat.unflatten(2, (height, width)) @ self.columns)
        return x

    def _spectrum(self, x: Tensor) -> Tensor:
        """All coefficients ``(n, c, h·w)`` of images ``(n, c, h, w)`` in [0, 1]."""
        found: Tensor = (self.rows @ ((x - self.offset) / self.gain) @ self.columns.T).flatten(2)
        return found

    def encode(self, x: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """The kept coefficients of images ``(n, c, h, w)`` in [0, 1]: the nearest image that can be stored."""
        return {"f": self._spectrum(x).gather(2, self._places(owner))}

    @torch.no_grad()
    def adapt(self, x: Tensor, owner: Tensor) -> None:
        """Choose each class's mask: the m frequencies with the largest variance over its real images, channels summed.

        A class with fewer than two images keeps the mask it has. A tie goes to the lower position.
        """
        spectrum = self._spectrum(x).double()
        for cls in owner.unique().tolist():
            mine = spectrum[owner == cls]
            if len(mine) > 1:
                order = mine.var(0).sum(0).argsort(descending=True, stable=True)
                self.mask[cls] = order[: self.mask.shape[1]].to(self.mask)


def _cosines(size: int) -> Tensor:
    """Orthonormal DCT-II matrix ``(size, size)``: row u holds the wave of frequency u."""
    place = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.float()


def _by_frequency(height: int, width: int) -> Tensor:
    """Positions in h·w from the lowest frequency to the highest."""
    u = torch.arange(height, dtype=torch.float64)[:, None] / height
    v = torch.arange(width, dtype=torch.float64)[None] / width
    return (u.square() + v.square()).flatten().argsort(stable=True)
