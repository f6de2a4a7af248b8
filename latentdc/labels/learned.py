"""Labels that are learned with the set: logits of a distribution over classes for each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from latentdc.errors import InputError
from latentdc.labels.teacher import TeacherLabels
from latentdc.portable.bank import LatentBank

STARTS = ("class", "teacher")


@dataclass(frozen=True)
class LearnedLabels(TeacherLabels):
    """Each row's distribution over classes is learned with its latent, by the same objective: ``y_i = softmax(ℓ_i)``.

    The logits ℓ ``(s, k)`` start at ``log y⁰``, ``y⁰ = (1 − smoothing) said + smoothing / k``, where ``said`` is the
    row's class or what a teacher says of its images, and move at the rate of the latents or, in a table of rates, at
    that of ``labels``. They have a gradient where the objective looks at targets: matched gradients of a network draw
    them to whatever has its rows act as the real images do; the cross-entropy penalty to the class that the step's
    network takes a row for. The class that a row was made for stays what it is: it conditions the decoder, and a match
    is by it. One distribution per stored row, counted as those of a teacher.

    *Reference:* Sucholutsky and Schonlau 2021, "Soft-Label Dataset Distillation and Text Dataset Distillation",
    arXiv 1910.02551 (images and labels); Bohdal, Yang and Hospedales 2020, "Flexible Dataset Distillation: Learn Labels
    Instead of Images", arXiv 2006.08572; Guo et al. 2024 (DATM), arXiv 2310.05773 (the softmax of learned logits, which
    start at a teacher's).
    *Differs from the authors' code:* it is a part of any objective, where the first two differentiate through the
    training of a student, and learn the numbers themselves, not logits. DATM's logits start at the mean of several
    experts', of those alone that are right.

    Args:
        start: ``"class"``: the row's class, or ``"teacher"``: what one says of the start, trained by the further
            options, which are those of teacher's labels.
        smoothing: share of y⁰ that all classes have alike, below 1; above 0 from a class, whose logits would else be
            infinite.

    Raises:
        InputError: a value out of range, or a teacher's option without one.
    """

    cite: ClassVar[tuple[str, ...]] = ("sucholutsky2021soft", "bohdal2020labels", "guo2024datm")

    start: str = "class"
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in STARTS:
            raise InputError(f'labels.start = "{self.start}": give "class" or "teacher".')
        taught = self.start == "teacher"
        if not (0 <= self.smoothing < 1 and (taught or self.smoothing)):
            raise InputError(
                f"labels.smoothing = {self.smoothing}: give a share below 1, and above 0 where labels start at classes."
            )
        for each in dataclasses.fields(TeacherLabels):
            if not taught and getattr(self, each.name) != each.default:
                raise InputError(f'labels.{each.name} is a teacher\'s: set labels.start = "teacher", or leave it out.')


class _Softmax(nn.Module):
    """Logits as what is learned of a distribution."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def right_inverse(self, y: Tensor) -> Tensor:
        return y.clamp(min=torch.finfo(y.dtype).tiny).log()


@contextmanager
def as_logits(bank: LatentBank) -> Iterator[None]:
    """Inside the block a bank's soft labels are the softmax of logits, its parameter in their place; then labels again.

    Nothing happens to a bank without soft labels, or with ones that require no gradient.
    """
    if bank.soft is None or not bank.soft.requires_grad:
        yield
        return
    parametrize.register_parametrization(bank, "soft", _Softmax())
    try:
        yield
    finally:
        parametrize.remove_parametrizations(bank, "soft")


def logits_of(bank: LatentBank) -> nn.Parameter | None:
    """The logits that are learned inside ``as_logits``; None where no labels are."""
    if not parametrize.is_parametrized(bank, "soft"):
        return None
    logits: nn.Parameter = bank.parametrizations["soft"].original
    return logits


def check_moved(bank: LatentBank) -> None:
    """Refuse to learn labels that the objective just differentiated does not depend on.

    Raises:
        InputError: with what would do.
    """
    logits = logits_of(bank)
    if logits is not None and logits.grad is None:
        raise InputError(
            "the labels are to be learned, and nothing in the objective looks at them: match gradients, add the "
            "cross-entropy penalty, or keep them as they are (bank.soft.requires_grad_(False), or no labels at all)."
        )
