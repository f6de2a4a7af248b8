"""The labels of a bank's rows: given to a finished set, or given at the start and learned from there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from latentdc.errors import InputError
from latentdc.labels.base import Labels, Lesson
from latentdc.labels.learned import LearnedLabels
from latentdc.latents import decode
from latentdc.portable.bank import LatentBank
from latentdc.types import Decoder, Formation


def relabelled(
    labels: Labels, bank: LatentBank, decoder: Decoder, formation: Formation | None, lesson: Lesson
) -> LatentBank:
    """A finished set with the labels of a part; the same bank where it has them: those of its rows, or learned ones.

    A row that a formation makes several images of takes the mean of their labels.
    """
    if isinstance(labels, LearnedLabels):
        return bank
    said = labels.of(_images(bank, decoder, formation), lesson)
    return bank if said is None else _told(bank, _per_row(said, bank))


def begun(
    labels: LearnedLabels, bank: LatentBank, decoder: Decoder, formation: Formation | None, lesson: Lesson | None
) -> LatentBank:
    """A bank whose rows carry the labels that learning starts at; ``condense`` moves them.

    Args:
        labels: what the labels start at.
        bank: the rows as they start, on the CPU; the one that comes back is there too.
        decoder, formation: what the rows are decoded with, on the lesson's device.
        lesson: of the teacher; None where there are no real images.

    Raises:
        InputError: a teacher, and no real images.
    """
    if labels.start == "class":
        y = bank.y
    elif lesson is None:
        raise InputError('labels.start = "teacher": it is trained on real images, and none were given.')
    else:
        nn.Module.to(bank, lesson.device)
        y = _per_row(labels.of(_images(bank, decoder, formation), lesson), bank).cpu()
        nn.Module.to(bank, "cpu")
    return _told(bank, (1 - labels.smoothing) * y + labels.smoothing / bank.num_classes)


def _images(bank: LatentBank, decoder: Decoder, formation: Formation | None) -> Callable[[], Tensor]:
    return lambda: decode(decoder, bank, formation=formation).x.clamp(0, 1)


def _per_row(said: Tensor, bank: LatentBank) -> Tensor:
    """The mean over each row's images ``(s, k)``."""
    return said.view(bank.num_rows, -1, said.shape[1]).mean(1)


def _told(bank: LatentBank, y: Tensor) -> LatentBank:
    told: LatentBank = LatentBank.of(bank.latents(), bank.counts, y=y.to(bank.owner.device), w=bank.w)
    nn.Module.to(told, bank.owner.device)
    return told
