"""Labels that a network trained on the real images gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.data.augment import DSA, per_image
from latentdc.errors import InputError
from latentdc.labels.base import Lesson
from latentdc.networks import ARCHITECTURES, build
from latentdc.networks.infer import observations
from latentdc.networks.train import TrainSpec, train_student
from latentdc.seeding import key, stream


@dataclass(frozen=True)
class TeacherLabels:
    """A network trained on the real images says how likely each class is: ``softmax(logits / temperature)``.

    One distribution per stored row, of 2 k bytes (4 k in a set stored in fp32): reports count them. The
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
