"""Named, frozen student protocols: how a set of images becomes one accuracy, the same for every row of a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Literal

from latentdc.data.augment import DSA, NoAugment, per_image
from latentdc.data.cut_mix import CutMix
from latentdc.errors import InputError, unknown
from latentdc.networks.train import Augment, Mix, TrainSpec
from latentdc.types import DataSpec


@dataclass(frozen=True)
class Protocol:
    """SGD from scratch on the set, with DSA, read off after the last epoch (never the best epoch).

    The learning rate falls once, after epoch E // 2 + 1, or at ``milestones`` (see ``TrainSpec``).

    *Reference:* Zhao & Bilen 2021 (DSA), arXiv 2102.08259, §4.1; the protocol of DSA and DM. Without augmentation
    Zhao et al. 2021 (DC), arXiv 2006.05929, §4.1 and released code. With milestones and CutMix Kim et al. 2022 (IDC),
    arXiv 2205.14959, §5.1; that of IDC, DREAM, DANCE and M3D.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2021dsa", "zhao2021dc", "zhao2023dm", "kim2022idc", "yun2019cutmix")
    name: str
    epochs: int
    """Epochs, or their upper bound when ``image_budget`` is given."""
    image_budget: int | None = None
    """Images shown in one training: a set of n images then gets min(epochs, image_budget // n) epochs, at least one."""
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_factor: float = 0.1
    strategy: str = "color_crop_cutout_flip_scale_rotate"
    """DSA groups, one draw per image, no mirroring where it would change labels; or ``"none"``: images as they are."""
    mode: Literal["S", "M", "I"] = "S"
    """Which of them a mini-batch undergoes, see ``DSA``."""
    milestones: tuple[float, ...] | None = None
    """Shares of the epochs after which the learning rate falls; None for DSA's schedule."""
    cut_mix: float = 0.0
    """Probability that a mini-batch is cut and mixed."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: epochs, image budget or batch size below 1.
        """
        numbers = {"epochs": self.epochs, "image_budget": self.image_budget, "batch_size": self.batch_size}
        for what, value in numbers.items():
            if value is not None and value < 1:
                raise InputError(f"protocol {self.name}: {what} = {value}; give an integer of at least 1")

    def epochs_for(self, num_images: int) -> int:
        """Epochs that a set of ``num_images`` images is trained for."""
        if self.image_budget is None:
            return self.epochs
        return max(1, min(self.epochs, self.image_budget // max(1, num_images)))

    def train_spec(self, num_images: int) -> TrainSpec:
        """Settings of the student trainer for a set of ``num_images`` images."""
        epochs = self.epochs_for(num_images)
        return TrainSpec(
            epochs=epochs,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            decay_factor=self.decay_factor,
            milestones=None if self.milestones is None else tuple(max(1, int(m * epochs)) for m in self.milestones),
        )

    def augmentation(self, spec: DataSpec) -> DSA | NoAugment:
        """The strategy as it acts on a data set: without mirroring where a mirrored image means something else."""
        if self.strategy == "none":
            return NoAugment()
        return DSA(strategy=self.strategy, mode=self.mode).for_data(spec)

    def strategy_for(self, spec: DataSpec) -> str:
        """The groups that students of a data set see."""
        augmentation = self.augmentation(spec)
        return "none" if isinstance(augmentation, NoAugment) else augmentation.strategy

    def augmenter(self, spec: DataSpec) -> Augment:
        """The per-mini-batch augmentation for a data set."""
        return per_image(self.augmentation(spec), spec)

    def mixer(self) -> Mix | None:
        """What mixes the images of a mini-batch with each other, if anything does."""
        return CutMix(self.cut_mix) if self.cut_mix else None

    def to_dict(self) -> dict[str, object]:
        """All values, for a report.

        Keys that came after the first release are left out at their defaults: reports and logs of finished students
        written before stay those of the same protocol.
        """
        return {key: value for key, value in asdict(self).items() if key not in _LATER or value != _LATER[key]}


_LATER = {each.name: each.default for each in fields(Protocol) if each.name in ("mode", "milestones", "cut_mix")}

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("dsa-1000", epochs=1000),
        Protocol("quick", epochs=300),
        Protocol("dc-300", epochs=300, strategy="none"),
        Protocol("dsa-150k", epochs=1000, image_budget=150_000),
        Protocol("whole-20", epochs=20),  # for sets as large as the real one
        Protocol(
            "idc-1000",
            epochs=1000,
            batch_size=64,
            decay_factor=0.2,
            strategy="color_crop_flip_scale_rotate",
            mode="I",
            milestones=(2 / 3, 5 / 6),
            cut_mix=0.5,
        ),
    )
}
"""Named protocols; each is frozen, its values are part of every report."""


def find_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of that name, or the one given.

    Raises:
        InputError: no protocol of that name; the message lists them.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise InputError(unknown("protocol", protocol, PROTOCOLS))
    return PROTOCOLS[protocol]
