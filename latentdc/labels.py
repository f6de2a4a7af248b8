"""Labels of a finished set: the class of each row, or what a teacher says of the images it decodes to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

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


@runtime_checkable
class Labels(Protocol):
    """Gives a finished set its labels. A part: a frozen dataclass whose fields a recipe may set."""

    def relabel(
        self,
        bank: LatentBank,
        decoder: Decoder,
        formation: Formation | None,
        store: ClassStore,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
    ) -> LatentBank:
        """The set with these labels; the same bank where they are those it has."""
        ...


@dataclass(frozen=True)
class HardLabels:
    """The class that a row was made for. Costs a count per class."""

    cite: ClassVar[tuple[str, ...]] = ()

    def relabel(
        self,
        bank: LatentBank,
        decoder: Decoder,
        formation: Formation | None,
        store: ClassStore,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
    ) -> LatentBank:
        """The bank as it is."""
        del decoder, formation, store, seed, device, precision, compile
        return bank


@dataclass(frozen=True)
class TeacherLabels:
    """A network trained on the real images says how likely each class is: ``softmax(logits / temperature)``.

    One distribution per stored row, the mean over the images that a formation makes of it, 2 k bytes a row in a set
    stored as fp16 or int8 (4 k in fp32): reports count them. The teacher is trained as a student is, with DSA, at a
    rate of 0.01 that falls tenfold half-way, and is not kept.

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

    def relabel(
        self,
        bank: LatentBank,
        decoder: Decoder,
        formation: Formation | None,
        store: ClassStore,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
    ) -> LatentBank:
        """A bank of the same rows with the teacher's labels."""
        teacher = build(self.arch, store.spec, seed=seed, width=self.width, purpose="teacher").to(device)
        rows = torch.randperm(len(store), generator=stream(seed, "teacher-images"))[: self.num_images]
        half = max(self.epochs // 2, 1)
        train_student(
            teacher,
            store.images[rows],
            store.labels[rows],
            TrainSpec(self.epochs, milestones=(half,)),
            augment=per_image(DSA().for_data(store.spec), store.spec),
            seed=key(seed, "teacher"),
            device=device,
            precision=precision,
            compile=compile,
        )
        images = decode(decoder, bank, formation=formation).x.clamp(0, 1)
        logits = torch.cat([seen.logits.float() for seen in observations(teacher, images)])
        said = (logits / self.temperature).softmax(1)  # (s * expands, k)
        y: Tensor = said.view(bank.num_rows, -1, said.shape[1]).mean(1).to(bank.owner.device)
        relabelled: LatentBank = LatentBank.of(bank.latents(), bank.counts, y=y, w=bank.w)
        nn.Module.to(relabelled, bank.owner.device)
        return relabelled


LABELS: dict[str, type[Labels]] = {"hard": HardLabels, "teacher": TeacherLabels}
"""What a recipe may ask for."""
