"""Matching of characteristic functions at the frequencies where they differ most: a min-max game over the sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.discrepancies.base import Facing, Summary, face, hold
from latentdc.discrepancies.characteristic import CharacteristicFunction
from latentdc.discrepancies.directions import normal_vectors
from latentdc.errors import InputError

_SHARED = 16
"""Frequencies that a component of the mixture draws, as published."""


@dataclass(frozen=True)
class AdversarialCharacteristicFunction(CharacteristicFunction):
    """The difference of ``cf`` under the sampler of frequencies that makes it large: ``Σ_c max_σ cf_c(t ~ p_σ)``.

    ``p_σ = (1/J) Σ_j N(0, diag(σ_j²))`` is a scale mixture of J = num / 16 normals, ``t_i = σ_j ∘ n_i`` of fixed draws
    n ~ N(0, I), 16 to a component. Each class has its own σ. In every call it starts at ones, where the value is that
    of ``cf``, and climbs: ``log σ ← log σ + rate · sign(∂ cf_c / ∂ log σ)``, on points that do not move; steps in the
    norm whose size does not depend on d or J. The largest value on the way is the one taken, so that it never falls
    below ``cf``. Range as there.

    Gradients reach the points at fixed frequencies, which by the envelope theorem is the gradient of the maximum.
    Each class takes num · d numbers for its frequencies, and each ascent a forward and a backward pass of the waves.

    *Reference:* Wang et al. 2025, "Dataset Distillation with Neural Characteristic Function", arXiv 2502.20653, the
    min-max problem over images and the sampling network.
    *Differs from the authors' code:* the scales are parameters, not the output of a network that is fed noise, and may
    grow as well as shrink, where its last tanh bounds them by one. The game is played to ``ascents`` steps anew in
    every call, against the step's own network; the authors' sampler lives through the run and takes one step in each.
    In their released settings it is switched off.

    Args:
        ascents: steps that the scales take; 0 is ``cf``, from points in place of sums.
        rate: by how much a log scale moves in one: each stays within ``exp(± ascents · rate)``.

    Raises:
        InputError: an option out of range.
    """

    sketchable: ClassVar[bool] = False

    ascents: int = 5
    rate: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ascents < 0:
            raise InputError(f"by.ascents = {self.ascents}: give at least 0 steps")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"by.rate = {self.rate}: give a positive, finite step of the log scales")

    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """The points themselves: the frequencies depend on both sides. ``scale`` has no meaning here."""
        del scale
        return hold(points, owner, num_classes, w)

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the present classes, in the points' dtype."""
        return self.at(self.frequencies(real, points, owner, w), real, points, owner, w)

    def at(self, frequencies: Tensor, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """The difference at given frequencies ``(c, d, num)`` of the c classes present, in ascending order."""
        return self._apart(face(real, points, owner, w, self), frequencies).sum()

    def frequencies(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Frequencies ``(c, d, num)`` at which the c classes present were found to differ most; no graph."""
        sides = face(real, points.detach(), owner, w, self)
        drawn = normal_vectors(self.seed, points.shape[1], self.num, points.dtype, points.device)
        logs = points.new_zeros(len(sides.classes), points.shape[1], math.ceil(self.num / _SHARED))
        best, most = logs, points.new_full((len(logs),), -math.inf)
        for ascent in range(self.ascents + 1 if self.ascents else 0):
            climbing = ascent < self.ascents
            with torch.set_grad_enabled(climbing):
                values = self._apart(sides, self._scaled(drawn, logs.requires_grad_(climbing)))
            best = torch.where((values > most)[:, None, None], logs, best).detach()
            most = torch.maximum(values, most).detach()
            if climbing:
                (slope,) = torch.autograd.grad(values, logs, torch.ones_like(values))
                logs = logs.detach() + self.rate * slope.sign()
        return self._scaled(drawn, best)

    def _scaled(self, drawn: Tensor, logs: Tensor) -> Tensor:
        """Draws ``(d, num)`` times the scales of their components ``(c, d, J)``: ``(c, d, num)``."""
        return drawn * logs.exp().repeat_interleave(_SHARED, 2)[..., : self.num]

    def _apart(self, sides: Facing, frequencies: Tensor) -> Tensor:
        """The difference of each class ``(c,)``."""
        ours, theirs = (
            self._means(points, weights, frequencies)
            for points, weights in ((sides.syn, sides.syn_weights), (sides.real, sides.real_weights))
        )
        return self._gaps(ours, theirs)

    def _means(self, points: Tensor, weights: Tensor, frequencies: Tensor) -> Tensor:
        """Means ``(c, 2, num)`` of [cos, sin] of points ``(c, n, d)``."""
        phase = self._sized(points) @ frequencies  # (c, n, num)
        return torch.stack([(weights[:, None] @ wave).squeeze(1) for wave in (phase.cos(), phase.sin())], 1)
