"""Random Fourier features: maximum mean discrepancy from additive sums, so that a sketch can hold the real side."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_means, exact_sums, must_cover
from latentdc.discrepancies.kernels import FACTORS, mean_square_distance
from latentdc.errors import InputError


@functools.lru_cache(maxsize=8)
def _frequencies(seed: int, dim: int, num: int) -> Tensor:
    """Frequencies ``(dim, num)`` for unit squared length: column j belongs to factor j mod 5, N(0, 2 / f)."""
    rng = torch.Generator().manual_seed(seed)
    factors = torch.tensor(FACTORS, dtype=torch.float64)[torch.arange(num) % len(FACTORS)]
    return torch.randn(dim, num, generator=rng, dtype=torch.float64) * (2 / factors).sqrt()


@functools.lru_cache(maxsize=8)
def _shares(num: int) -> Tensor:
    """Weight of each frequency ``(num,)``: one over the number of frequencies of its factor."""
    factor = torch.arange(num) % len(FACTORS)
    return 1 / torch.bincount(factor)[factor].double()


@functools.lru_cache(maxsize=16)
def _placed(seed: int, dim: int, num: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return _frequencies(seed, dim, num).to(device, dtype), _shares(num).to(device, dtype)


@dataclass(frozen=True)
class RandomFourier(Discrepancy):
    """Squared maximum mean discrepancy of ``mmd``'s kernel, from random Fourier features: the sketchable ``mmd``.

    ``Σ_c Σ_j a_j ( |E cos ω_j·s − E cos ω_j·t|² + |E sin ω_j·s − E sin ω_j·t|² )`` with ω_j ~ N(0, 2 / (f b_c) I), f
    in ¼, ½, 1, 2, 4 and ``a_j`` one over the number of frequencies of that f. Its expectation over the frequencies is
    ``mmd`` with the same ``b_c``, its relative error falls as ``1 / sqrt(num)``, and for fixed frequencies it is a
    discrepancy itself: range [0, 10] per class, zero on equal distributions. Costs O((m + n) d num).

    *Reference:* Rahimi and Recht 2007, NIPS, algorithm 1 (the paired cos and sin form).

    Args:
        num: number of frequencies; a summary holds 2 num sums per class.
        seed: of the frequencies.
        bandwidth: ``b`` of every class; None takes it from the real points.
    """

    sketchable: ClassVar[bool] = True
    calibrated: ClassVar[bool] = True
    cite: ClassVar[tuple[str, ...]] = ("rahimi2007rff", "gretton2012mmd")

    num: int = 1024
    seed: int = 0
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.num < len(FACTORS):
            raise InputError(f"by.num = {self.num}: give at least {len(FACTORS)} frequencies, one per kernel length")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise InputError(f"by.bandwidth = {self.bandwidth}: give a positive squared length, or leave it out")

    def lengths(self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Tensor | None:
        """Squared length of each class ``(k,)``."""
        if self.bandwidth is None:
            return mean_square_distance(points, owner, num_classes, w)
        return points.new_full((num_classes,), self.bandwidth, dtype=torch.float64)

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums of [cos, sin] ``(k, 2 num)``, counts ``(k,)`` and lengths ``(k,)``."""
        with torch.no_grad():
            found = self.lengths(points, owner, num_classes, w) if scale is None else scale
            if found is None:
                raise InputError(f"{type(self).__name__} has no kernel lengths; give scale")
            waves = self._waves(points, owner, found)
            return Summary(*exact_sums(waves, owner, num_classes, w), scale=found)

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        if real.scale is None or not real.additive:
            raise InputError("rff was given the summary of another discrepancy; summarise with its own")
        means, present = class_means(self._waves(points, owner, real.scale), owner, len(real.counts), w)
        must_cover(real, present)
        gap = (means - real.mean.to(points.dtype)) * present[:, None]
        _, shares = _placed(self.seed, points.shape[1], self.num, points.dtype, points.device)
        return (gap.square().sum(0) * torch.cat([shares, shares])).sum()

    def _waves(self, points: Tensor, owner: Tensor, scale: Tensor) -> Tensor:
        frequencies, _ = _placed(self.seed, points.shape[1], self.num, points.dtype, points.device)
        phase = (points * scale.to(points.dtype).rsqrt()[owner][:, None]) @ frequencies  # (n, num)
        return torch.cat([phase.cos(), phase.sin()], 1)
