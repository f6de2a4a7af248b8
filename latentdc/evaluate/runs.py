"""Trains the students: one run is one row, one architecture and one seed; finished runs survive an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.evaluate.baselines import Candidate
from latentdc.evaluate.protocols import Protocol
from latentdc.evaluate.records import Row, Run
from latentdc.evaluate.sets import ImageSet
from latentdc.networks import build
from latentdc.networks.train import accuracy, train_student
from latentdc.types import DataSpec

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How every run of a report is made."""

    protocol: Protocol
    precision: str = "fp32"
    compile: bool = False
    width: int | None = None
    """Width of the students; None is the published one."""
    device: str = "cpu"


class RunLog:
    """Finished runs by identity, appended to a ``runs.jsonl`` as they finish, so that a second call skips them.

    Args:
        path: file to read and append to; None keeps runs in memory only.

    Raises:
        InputError: the file holds something else than runs.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._runs: dict[str, Run] = {}
        if path is None or not path.exists():
            return
        lines = path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = json.loads(line)
                self._runs[entry["identity"]] = Run(**entry["run"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                message = f"{path}, line {number} is not a run ({error}); delete the line to train it again"
                raise InputError(message) from error
        if lines[-1]:  # a line cut short by a kill: train that run again
            _LOG.warning("%s: dropping an unfinished last line", path)
            path.write_text("".join(line + "\n" for line in lines[:-1]), encoding="utf-8")

    def find(self, identity: str) -> Run | None:
        """The finished run of that identity."""
        return self._runs.get(identity)

    def add(self, identity: str, run: Run, **about: str) -> None:
        """Record a finished run; ``about`` is for human readers of the file."""
        self._runs[identity] = run
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"identity": identity, **about, "run": asdict(run)})
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def train_run(
    images: ImageSet, judge: ClassStore, spec: DataSpec, settings: Settings, *, student: str, seed: int
) -> Run:
    """Train one student from scratch on a set and read its accuracy on ``judge`` after the last epoch.

    Args:
        images: the set.
        judge: images the set was not made from.
        spec: specification of the real data: its mean and standard deviation normalise every row alike.
        settings: protocol, precision and device.
        student: architecture name.
        seed: initialisation, order and augmentation.
    """
    start = time.perf_counter()
    recipe = settings.protocol.train_spec(len(images))
    network = build(student, spec, seed=seed, width=settings.width, purpose="student-network")
    trained = train_student(
        network,
        images.x,
        images.y,
        recipe,
        w=images.w,
        augment=settings.protocol.augmenter(spec),
        seed=seed,
        device=settings.device,
        precision=settings.precision,
        compile=settings.compile,
    )
    right = accuracy(trained, judge.images, judge.labels)
    return Run(seed, right, len(images), recipe.epochs, time.perf_counter() - start)


def identity(candidate: Candidate, judge_key: str, settings: Settings, *, student: str, seed: int) -> str:
    """Hash of everything a run's accuracy depends on (but the machine and whether it was compiled)."""
    whole = {
        "row": [candidate.name, candidate.key, candidate.counts],
        "judge": judge_key,
        "protocol": settings.protocol.to_dict(),
        "precision": settings.precision,
        "width": settings.width,
        "student": student,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass
class Bench:
    """Runs candidates against one set of test images, with one progress bar over all runs."""

    judge: ClassStore
    judge_key: str
    spec: DataSpec
    settings: Settings
    log: RunLog
    progress: bool = True
    on_run: Sequence[Callable[[Row], None]] = field(default=())

    def rows(self, candidates: Sequence[Candidate], students: Sequence[str], seeds: Sequence[int]) -> tuple[Row, ...]:
        """All rows, grouped by student; a candidate's set is drawn once per seed and shared by the students."""
        total = len(candidates) * len(students) * len(seeds)
        found: dict[str, list[Row]] = {student: [] for student in students}
        with tqdm(total=total, unit="run", desc="evaluate", disable=not self.progress) as bar:
            for candidate in candidates:
                runs: dict[str, list[Run]] = {student: [] for student in students}
                for seed in seeds:
                    for student, run in self._seed(candidate, students, seed).items():
                        runs[student].append(run)
                        bar.set_postfix_str(f"{candidate.name} {student} {run.accuracy:.1f} %")
                        bar.update()
                for student in students:
                    found[student].append(_row(candidate, student, runs[student]))
        return tuple(row for student in students for row in found[student])

    def _seed(self, candidate: Candidate, students: Sequence[str], seed: int) -> dict[str, Run]:
        """The runs of one candidate and seed, trained or remembered."""
        images: ImageSet | None = None
        done: dict[str, Run] = {}
        for student in students:
            mark = identity(candidate, self.judge_key, self.settings, student=student, seed=seed)
            run = self.log.find(mark)
            if run is None:
                images = images or candidate.draw(seed)
                run = train_run(images, self.judge, self.spec, self.settings, student=student, seed=seed)
                self.log.add(mark, run, row=candidate.name, basis=candidate.basis, student=student)
            done[student] = run
        return done


def _row(candidate: Candidate, student: str, runs: Sequence[Run]) -> Row:
    """A report row of finished runs."""
    return Row(
        name=candidate.name,
        basis=candidate.basis,
        student=student,
        images_per_class=candidate.num_images / len(candidate.counts),
        stored_per_class=candidate.stored_per_class,
        bytes_per_class=candidate.bytes_per_class,
        runs=tuple(runs),
    )
