"""One run: one student trained from scratch on one set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from latentdc.data.store import ClassStore
from latentdc.evaluate.protocols import Protocol
from latentdc.evaluate.records import Run
from latentdc.evaluate.sets import ImageSet
from latentdc.networks import build
from latentdc.networks.train import accuracy, train_student
from latentdc.types import DataSpec


@dataclass(frozen=True)
class Settings:
    """How every run of a report is made."""

    protocol: Protocol
    precision: str = "fp32"
    compile: bool = False
    width: int | None = None
    """Width of the students; None is the published one."""
    device: str = "cpu"


@dataclass(frozen=True)
class Task:
    """What one run trains and where its accuracy is read."""

    images: ImageSet
    judges: Sequence[ClassStore]
    """Images the set was not made from; the one student is judged on each of them."""
    spec: DataSpec
    """Specification of the real data: its mean and standard deviation normalise every row alike."""
    student: str
    seed: int
    """Initialisation, order and augmentation."""
    identities: Sequence[str] = ()
    """What each of the runs is found by, one for each judge."""


def train_run(task: Task, settings: Settings) -> tuple[Run, ...]:
    """Train one student from scratch and read its accuracy on each judge after the last epoch.

    Raises:
        DivergenceError: the student's loss is no longer finite.
    """
    start = time.perf_counter()
    recipe = settings.protocol.train_spec(len(task.images))
    network = build(task.student, task.spec, seed=task.seed, width=settings.width, purpose="student-network")
    trained = train_student(
        network,
        task.images.x,
        task.images.y,
        recipe,
        w=task.images.w,
        augment=settings.protocol.augmenter(task.spec),
        mix=settings.protocol.mixer(),
        seed=task.seed,
        device=settings.device,
        precision=settings.precision,
        compile=settings.compile,
    )
    reached = [accuracy(trained, judge.images, judge.labels) for judge in task.judges]
    seconds = time.perf_counter() - start
    return tuple(Run(task.seed, one, len(task.images), recipe.epochs, seconds) for one in reached)
