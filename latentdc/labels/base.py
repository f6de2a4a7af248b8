"""What every kind of labels is, and the plainest: the classes of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from latentdc.data.store import ClassStore


class Lesson(NamedTuple):
    """What a teacher is trained on, and how."""

    store: ClassStore
    seed: int
    device: torch.device | str = "cpu"
    precision: str = "fp32"
    compile: bool = False


@runtime_checkable
class Labels(Protocol):
    """Gives the images of a set their labels. A part: a frozen dataclass whose fields a recipe may set.

    They are those of the finished set, or, of ``LearnedLabels``, the ones that learning starts at.
    """

    def of(self, images: Callable[[], Tensor], lesson: Lesson) -> Tensor | None:
        """Distributions over classes ``(n, k)`` for the images ``(n, c, h, w)`` in [0, 1] that a call decodes.

        None for the rows' classes.
        """
        ...


@dataclass(frozen=True)
class HardLabels:
    """The class that a row was made for. Costs a count per class."""

    cite: ClassVar[tuple[str, ...]] = ()

    def of(self, images: Callable[[], Tensor], lesson: Lesson) -> None:
        """The rows' own classes; nothing is decoded."""
        del images, lesson
