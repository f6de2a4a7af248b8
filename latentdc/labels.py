"""Labels of a finished set: the class of each row, or what a teacher says of the images it decodes to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from latentdc.data.augment import DSA, per_image
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.latents import decode
from latentdc.networks import ARCHITECTURES, build
from latentdc.networks.infer import observations
from latentdc.networks.train import TrainSpec, train_student
from latentdc.portable.bank import LatentBank
from latentdc.seeding import key, stream
from latentdc.types import Decoder, Formation


class Lesson(NamedTuple):
    """What a teacher is trained on, and how."""

    store: ClassStore
    seed: int
    device: torch.device | str = "cpu"
    precision: str = "fp32"
    compile: bool = False


@runtime_checkable
class Labels(Protocol):
    """Gives the images of a finished set their labels. A part: a frozen dataclass whose fields a recipe may set."""

    def of(self, images: Callable[[], Tensor], lesson: Lesson) -> Tensor | None:
        """Distributions over classes ``(n, k)`` for the images ``(n, c, h, w)`` in [0, 1] that a call decodes.

        None for the rows' classes.
        """
        ...


def relabelled(
    labels: Labels, bank: LatentBank, decoder: Decoder, formation: Formation | None, lesson: Lesson
) -> LatentBank:
    """A set with the labels of a part; the same bank where they are the classes its rows were made for.

    A row that a formation makes several images of takes the mean of their labels.
    """
    said = labels.of(lambda: decode(decoder, bank, formation=formation).x.clamp(0, 1), lesson)
    if said is None:
        return bank
    y: Tensor = said.view(bank.num_rows, -1, said.shape[1]).mean(1).to(bank.owner.device)
    told: LatentBank = LatentBank.of(bank.latents(), bank.counts, y=y, w=bank.w)
    nn.Module.to(told, bank.owner.device)
    return told


@dataclass(frozen=True)
class HardLabels:
    """The class that a row was made for. Costs a count per class."""

    cite: ClassVar[tuple[str, ...]] = ()

    def of(self, images: Callable[[], Tensor], lesson: Lesson) -> None:
        """The rows' own classes; nothing is decoded."""
        del images, lesson


@dataclass(frozen=True)
class TeacherLabels:
    """A network trained on the real images says how likely each class is: ``softmax(logits / temperature)``.

    One distribution per stored row, 2 k bytes in a set stored as fp16 or int8 (4 k in fp32): reports count them. The
    teacher is trained as a student is, with DSA, at a rate of 0.01 that falls tenfold half-way, and is not kept.

    *Reference:* Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, eq. 1;
    Yin, Xing and Shen 2023 (SRe2L), arXiv 2306.13092, relabel each crop of each epoch, here each row has one label.

    Args:
        arch: the teacher's architecture.
        width: its width, None for the published one.
        epochs: passes over the real images.
        num_images: real images that it is trained on, a random draw; None for all.
        temperature: above 1 for softer labels.

    Raises:
        InputError: a value out of range.
    """

    cite: ClassVar[tuple[str, ...]] = ("hinton2015distilling",)

    arch: str = "convnet"
    width: int | None = None
    epochs: int = 20
    num_images: int | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, value in {"width": self.width, "epochs": self.epochs, "num_images": self.num_images}.items():
            if value is not None and value < 1:
                raise InputError(f"labels.{name} = {value}: give at least 1.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"labels.temperature = {self.temperature}: give a positive, finite number.")
        if ":" not in self.arch and self.arch not in ARCHITECTURES:
            raise InputError(f'labels.arch = "{self.arch}": give one of {", ".join(sorted(ARCHITECTURES))}.')

    def of(self, images: Callable[[], Tensor], lesson: Lesson) -> Tensor:
        """What a teacher, trained now, says of the images."""
        store, seed = lesson.store, lesson.seed
        teacher = build(self.arch, store.spec, seed=seed, width=self.width, purpose="teacher")
        rows = torch.randperm(len(store), generator=stream(seed, "teacher-images"))[: self.num_images]
        train_student(
            teacher,
            store.images[rows],
            store.labels[rows],
            TrainSpec(self.epochs, milestones=(max(self.epochs // 2, 1),)),
            augment=per_image(DSA().for_data(store.spec), store.spec),
            seed=key(seed, "teacher"),
            device=lesson.device,
            precision=lesson.precision,
            compile=lesson.compile,
        )
        logits = torch.cat([seen.logits.float() for seen in observations(teacher, images())])
        return (logits / self.temperature).softmax(1)


LABELS: dict[str, type[Labels]] = {"hard": HardLabels, "teacher": TeacherLabels}
"""What a recipe may ask for."""
