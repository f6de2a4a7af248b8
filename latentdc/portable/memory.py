"""Images as weighted sums of a few learned bases that all classes share: the linear memory.

A decoder and not a formation: a stored row is the weights of one image, not an image that is to become several.
"""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class MemoryDecoder(ModelMixin, ConfigMixin):
    """x = mean + std · up( Σ_i a_i b_i ): r bases b_i, enlarged f times (bilinear), are addressed by weights a.

    The bases are learned together with the weights and counted in the set's bytes. ``condense`` trains a decoder that
    says ``learned``.

    Args:
        image_shape: ``(c, h, w)``; filled in from the data by recipes, as are ``mean`` and ``std``.
        mean: per-channel mean of the data in [0, 1].
        std: per-channel standard deviation of the data.
        num_bases: r.
        downsample: f; it must divide h and w.

    Raises:
        ValueError: no basis, statistics that do not fit the channels, or a factor that does not divide the sides.

    *Reference*: Deng and Russakovsky 2022, "Remember the Past", arXiv 2206.02916, §3.1.
    *Differs from the authors' code*: a row's weights are its own latent, theirs are entries of per-class addressing
    matrices, which is the same set of numbers; bases start orthogonal, or at the data's principal directions.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("deng2022remember",)
    learned: ClassVar[bool] = True
    """``condense`` trains it with the set."""

    @register_to_config
    def __init__(
        self,
        image_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        num_bases: int = 16,
        downsample: int = 1,
    ) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in image_shape)
        channels, height, width = self.shape
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ValueError(f"mean = {tuple(mean)}, std = {tuple(std)}: give {channels} means and positive deviations")
        if num_bases < 1 or downsample < 1 or height % downsample or width % downsample:
            raise ValueError(
                f"num_bases = {num_bases}, downsample = {downsample}: give at least 1 basis and a factor that divides "
                f"{height} x {width}; change it in [decoder]"
            )
        self.factor = int(downsample)
        self.register_buffer("offset", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("gain", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))
        small = (channels, height // self.factor, width // self.factor)
        self.bases = nn.Parameter(_orthogonal(int(num_bases), math.prod(small)).unflatten(1, small))

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"a": (r,)}``."""
        return {"a": (self.bases.shape[0],)}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)``."""
        return self.shape

    @property
    def shared_bytes(self) -> int:
        """Bytes of the bases, which every class of the set shares."""
        return self.bases.numel() * self.bases.element_size()

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Standard normal weights, one row per entry of ``owner`` ``(n,)``, on the generator's device."""
        return {"a": torch.randn(len(owner), self.bases.shape[0], generator=rng, device=rng.device)}

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:  # noqa: ARG002
        """Images ``(n, c, h, w)`` of weights ``{"a": (n, r)}``; ``owner`` does not matter here."""
        small = (z["a"] @ self.bases.flatten(1)).unflatten(1, self.bases.shape[1:])
        if self.factor > 1:
            small = F.interpolate(small, size=self.shape[1:], mode="bilinear", align_corners=False)
        x: Tensor = self.offset + self.gain * small
        return x

    def _small(self, x: Tensor) -> Tensor:
        """Standardised images at the size of the bases, flat ``(n, d)``, in float64."""
        z = (x - self.offset) / self.gain
        return (F.avg_pool2d(z, self.factor) if self.factor > 1 else z).flatten(1).double()

    @torch.no_grad()
    def encode(self, x: Tensor, owner: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Weights of the nearest combination of bases to images ``(n, c, h, w)`` in [0, 1], at the bases' size."""
        back = torch.linalg.pinv(self.bases.flatten(1).double())  # (d, r)
        return {"a": (self._small(x) @ back).to(x.dtype)}

    @torch.no_grad()
    def adapt(self, x: Tensor, owner: Tensor) -> None:  # noqa: ARG002
        """Set the bases to the leading principal directions of real images ``(n, c, h, w)`` in [0, 1], about zero.

        They are scaled to the length of the ones they replace; bases beyond the rank of the images stay as they are.
        """
        points = self._small(x)
        values, vectors = torch.linalg.eigh(points.T @ points)
        rank = int((values > values.max() * 1e-9).sum())
        num = min(self.bases.shape[0], rank)
        leading = vectors.flip(1)[:, :num].T
        # The sign of an eigenvector is arbitrary: fix it, so that every machine starts from the same bases.
        leading = leading * leading.sum(1, keepdim=True).sign().where(leading.sum(1, keepdim=True) != 0, 1.0)
        length = self.bases[:num].flatten(1).norm(dim=1, keepdim=True)
        self.bases[:num] = (leading * length).to(self.bases.dtype).unflatten(1, self.bases.shape[1:])


def _orthogonal(num: int, size: int) -> Tensor:
    """Rows ``(num, size)``, orthogonal if there is room, such that standard normal weights give unit variance."""
    draw = torch.randn(size, num, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.linalg.qr(draw).Q.T if num <= size else draw.T / math.sqrt(size)
    return (rows * math.sqrt(size / num)).float().contiguous()
