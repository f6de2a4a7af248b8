"""How the learnables move: the optimiser and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdc.errors import InputError, unknown

OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Optim:
    """How the latents move.

    Args:
        kind: ``sgd`` (published pixel recipes) or ``adam`` (latents of generative decoders).
        lr: step size; pixels in standardised space take the published 1.0, unit-scale latents 0.01 to 0.1.
        momentum: of ``sgd``.
        betas: of ``adam``.
        schedule: ``constant``, or ``cosine``: lr · (1 + cos(π step / steps)) / 2.
    """

    kind: str = "adam"
    lr: float = 0.03
    momentum: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.kind not in OPTIMISERS:
            raise InputError(f"optim.kind = {unknown('optimiser', self.kind, OPTIMISERS)}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"optim.schedule = {unknown('schedule', self.schedule, SCHEDULES)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"optim.lr = {self.lr}: give a positive, finite number.")
        if not 0 <= self.momentum < 1 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optim.momentum = {self.momentum}, optim.betas = {self.betas}: each must be in [0, 1).")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser over ``parameters``."""
        if self.kind == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas)

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of one step, a pure function of the step so that resuming needs no scheduler state."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * step / steps)) / 2
