"""How the learnables move: the optimiser and its learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdc.errors import InputError, unknown

OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Optim:
    """How the latents move, and whatever else is learned with the set.

    Args:
        kind: ``sgd`` (published pixel recipes) or ``adam`` (latents of generative decoders).
        lr: step size; pixels in standardised space take the published 1.0, unit-scale latents 0.01 to 0.1. One number
            is the rate of everything that is learned: latents, labels, and a formation, decoder or objective. A
            table gives each latent key its own, such as ``{"f": 10.0, "w": 0.01}``; it has to name all of them, and
            ``formation``, ``decoder``, ``objective`` or ``labels`` if that learns too (``bank``: weights of rows).
        momentum: of ``sgd``.
        betas: of ``adam``.
        schedule: ``constant``, or ``cosine``: lr · (1 + cos(π step / steps)) / 2; the same factor for all rates.

    Raises:
        InputError: an unknown name, or a number out of range.
    """

    kind: str = "adam"
    lr: float | Mapping[str, float] = 0.03
    momentum: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.kind not in OPTIMISERS:
            raise InputError(f"optim.kind = {unknown('optimiser', self.kind, OPTIMISERS)}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"optim.schedule = {unknown('schedule', self.schedule, SCHEDULES)}")
        object.__setattr__(self, "lr", _rates(self.lr))
        if not 0 <= self.momentum < 1 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optim.momentum = {self.momentum}, optim.betas = {self.betas}: each must be in [0, 1).")

    def must_fit(self, keys: Iterable[str]) -> None:
        """Check that there is one rate for each thing that is learned.

        Args:
            keys: the decoder's latent keys, and what else learns, such as ``formation`` or ``labels``.

        Raises:
            InputError: a table leaves one out, or names something else.
        """
        if not isinstance(self.lr, Mapping):
            return
        wanted = tuple(dict.fromkeys(keys))
        known = ", ".join(wanted)
        for name in self.lr:
            if name not in wanted:
                raise InputError(f"optim.lr.{name}: nothing of that name is learned here. Give a rate for: {known}.")
        for name in wanted:
            if name not in self.lr:
                raise InputError(f"optim.lr has no rate for {name}. Give one number for all, or a rate for: {known}.")

    def build(self, learnables: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        """The optimiser, with a parameter group for each rate.

        Args:
            learnables: tensors by name: ``bank.z.<key>`` for latents, else ``<owner>.<name>``.

        Raises:
            InputError: a table of rates that does not fit them.
        """
        groups: dict[str, list[Tensor]] = {}
        for name, tensor in learnables.items():
            owner = name.removeprefix("bank.z.").split(".")[0]
            groups.setdefault(owner if isinstance(self.lr, Mapping) else "all", []).append(tensor)
        self.must_fit(groups)
        given = [
            {"params": tensors, "lr": self.lr[name] if isinstance(self.lr, Mapping) else self.lr, "name": name}
            for name, tensors in groups.items()
        ]
        for group in given:
            group["initial_lr"] = group["lr"]
        if self.kind == "sgd":
            return torch.optim.SGD(given, momentum=self.momentum)
        return torch.optim.Adam(given, betas=self.betas)

    def share_at(self, step: int, steps: int) -> float:
        """What the schedule leaves of every rate at a step, in [0, 1]: a pure function of the step, so that resuming
        needs no scheduler state."""
        return 1.0 if self.schedule == "constant" else (1 + math.cos(math.pi * step / steps)) / 2


def written(lr: float | Mapping[str, float]) -> str:
    """Rates as a message shows them: ``0.1``, or ``f 10, w 0.01``."""
    return ", ".join(f"{name} {rate:g}" for name, rate in lr.items()) if isinstance(lr, Mapping) else f"{lr:g}"


def _rates(lr: object) -> float | dict[str, float]:
    if isinstance(lr, Mapping):
        if not lr:
            raise InputError("optim.lr is an empty table: give one number, or a rate for each latent key.")
        return {str(name): _rate(f"optim.lr.{name}", value) for name, value in lr.items()}
    return _rate("optim.lr", lr)


def _rate(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where} = {value!r}: a number is needed here, or a table with one for each latent key.")
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where} = {value}: give a positive, finite number.")
    return float(value)
