"""Matching of characteristic functions, amplitude and phase, at random frequencies: sums, so that a sketch can hold the
real side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Discrepancy, Summary, class_means, exact_sums, must_be_sums, must_cover
from latentdc.discrepancies.directions import normal_vectors
from latentdc.errors import InputError

_FLOOR = 1e-12
"""Least value of a squared difference under a root, whose gradient would else be infinite where the sets agree."""


@dataclass(frozen=True)
class CharacteristicFunction(Discrepancy):
    """Difference of the characteristic functions ``Φ(t) = E exp(i⟨t, x⟩)`` of the two sets at fixed frequencies.

    ``Σ_c weight · mean_t sqrt( alpha (|Φ_T| − |Φ_S|)² + (1 − alpha) 2 |Φ_T| |Φ_S| (1 − cos(∠Φ_T − ∠Φ_S)) )`` with
    t ~ N(0, I), on points scaled to unit length. The first term compares amplitudes (how the points spread), the
    second phases (where they are); together they are ``|Φ_T − Φ_S|²``, so that alpha = 0.5 is plainly
    ``mean_t |Φ_T − Φ_S| / √2``. Range [0, 2] per class ([0, √2] at alpha = 0.5), times the weight; ``1e-6 weight`` on
    equal sets, from the floor under the root.

    Without the root the value at alpha = 0 and that at alpha = 1 add up to the squared maximum mean discrepancy of
    the kernel ``exp(−‖x − y‖² / 2)``, from random Fourier features. With it, mini-batches of real images bias the
    gradient; a sketch of them all does not.

    *Reference:* Wang et al. 2025, "Dataset Distillation with Neural Characteristic Function", arXiv 2502.20653,
    the loss by amplitude and phase.
    *Differs from the authors' code:* frequencies are drawn once, not anew each step, and are 1,024, from where on the
    paper finds no gain, where the released settings take 4,096; nothing learns them, as in all of those settings
    (``cf-adversarial`` does). The floor of 1e-12 is under the amplitude's square too, not under the phase's alone: the
    gradient is then finite for every alpha. The authors' factor of 300 is ``weight``.

    Args:
        num: number of frequencies; a summary holds 2 num sums per class.
        seed: of the frequencies.
        alpha: share of the amplitude, in [0, 1].
        normalise: whether points are scaled to unit length first. Without it the frequencies suit points that differ
            by about 1.
        root: whether the root is taken.
        weight: factor of the whole.

    Raises:
        InputError: an option out of range.
    """

    sketchable: ClassVar[bool] = True
    cite: ClassVar[tuple[str, ...]] = ("wang2025ncfm",)

    num: int = 1024
    seed: int = 0
    alpha: float = 0.5
    normalise: bool = True
    root: bool = True
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.num < 1:
            raise InputError(f"by.num = {self.num}: give at least 1 frequency")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"by.alpha = {self.alpha}: give a share of the amplitude between 0 and 1")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InputError(f"by.weight = {self.weight}: give a positive, finite factor")

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Float64 sums of [cos, sin] ``(k, 2 num)`` and counts ``(k,)``; ``scale`` has no meaning here."""
        del scale
        with torch.no_grad():
            return Summary(*exact_sums(self._waves(points), owner, num_classes, w))

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        must_be_sums(real, 2 * self.num, "cf")
        means, present = class_means(self._waves(points), owner, len(real.counts), w)
        must_cover(real, present)
        ours, theirs = (side[present].view(-1, 2, self.num) for side in (means, real.mean.to(points.dtype)))
        return self._gaps(ours, theirs).sum()

    def _gaps(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Of each class ``(c,)``, by the means of [cos, sin] of the two sides ``(c, 2, num)``."""
        whole = (ours - theirs).square().sum(1)  # (c, num)
        amplitude = (torch.linalg.vector_norm(ours, dim=1) - torch.linalg.vector_norm(theirs, dim=1)).square()
        # The rest of the whole: less rounding than from the product of lengths less the inner product.
        phase = whole - amplitude
        if self.root:
            amplitude, phase = amplitude.clamp(min=_FLOOR), phase.clamp(min=_FLOOR)
        terms: Tensor = self.alpha * amplitude + (1 - self.alpha) * phase
        return self.weight * (terms.sqrt() if self.root else terms).mean(1)

    def _waves(self, points: Tensor) -> Tensor:
        phase = self._sized(points) @ normal_vectors(self.seed, points.shape[1], self.num, points.dtype, points.device)
        return torch.cat([phase.cos(), phase.sin()], 1)

    def _sized(self, points: Tensor) -> Tensor:
        """Points ``(…, d)`` of unit length, if they are to be."""
        if not self.normalise:
            return points
        lengths = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
        return points / torch.where(lengths > 0, lengths, 1.0)  # a zero vector stays one
