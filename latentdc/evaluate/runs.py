"""All runs of a report: one per row, architecture and seed; finished runs survive an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from latentdc.data.named import PUBLISHED
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.evaluate.baselines import Candidate
from latentdc.evaluate.parallel import train_parallel
from latentdc.evaluate.records import Row, Run
from latentdc.evaluate.sets import ImageSet
from latentdc.evaluate.training import Settings, Task, train_run
from latentdc.types import DataSpec

_LOG = logging.getLogger(__name__)
_START = '{"identity": '
"""How every line begins; one that begins so and does not parse was cut short by a kill."""


@dataclass(frozen=True)
class _Read:
    """How far a log has been read."""

    size: int = 0
    start: int = 0
    """Where the line begins that had no end yet."""
    lines: int = 0
    """How many lines lie before it."""


class RunLog:
    """Finished runs by identity, appended to a ``runs.jsonl`` as they finish, so that a second call skips them.

    Several evaluations may share the file: it is only ever appended to, a whole line in one write, and a run that one
    of them is at (``claim``) is not trained by another meanwhile.

    Args:
        path: file to read and append to; None keeps runs in memory only.

    Raises:
        InputError: the file holds something else than runs.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.runs: dict[str, Run] = {}
        """Finished runs by identity."""
        self._read = _Read()
        self._claimed: dict[str, FileLock] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what others have appended since the last look."""
        if self.path is None or not self.path.exists() or self.path.stat().st_size == self._read.size:
            return
        if self.path.stat().st_size < self._read.size:  # a line was deleted
            self._read = _Read()
        with self.path.open("rb") as file:
            file.seek(self._read.start)
            text = file.read()
        *whole, last = text.decode("utf-8", errors="replace").split("\n")
        for number, line in enumerate(whole, start=self._read.lines + 1):
            self._take(number, line, torn=line.startswith(_START) or _START.startswith(line))
        self._take(self._read.lines + len(whole) + 1, last, torn=True)
        end = self._read.start + len(text)
        self._read = _Read(end, end - len(text.rpartition(b"\n")[2]), self._read.lines + len(whole))

    def _take(self, number: int, line: str, *, torn: bool) -> None:
        """Read one line; one that may have been cut short by a kill is stepped over, and its run trained again."""
        if not line:
            return
        try:
            entry = json.loads(line)
            self.runs[entry["identity"]] = Run(**entry["run"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if torn and isinstance(error, json.JSONDecodeError):
                _LOG.warning("%s: skipping line %d, which was not finished", self.path, number)
                return
            message = f"{self.path}, line {number} is not a run ({error}); delete the line to train it again"
            raise InputError(message) from error

    def find(self, identity: str) -> Run | None:
        """The finished run of that identity."""
        return self.runs.get(identity)

    def add(self, identity: str, run: Run, **about: str) -> None:
        """Record a finished run, which ends its claim; ``about`` is for human readers of the file.

        Raises:
            OSError: the line could not be written whole, for instance on a full disk.
        """
        self.runs[identity] = run
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, json.dumps({"identity": identity, **about, "run": asdict(run)}) + "\n")
        self._unlock(identity)

    def claim(self, identity: str, *, wait: bool = False) -> bool:
        """Whether a run is left to train and nobody else is at it; it is then this evaluation's until ``release``.

        Args:
            identity: what the run is found by.
            wait: for the other that is at it, until that one has finished or given up. Hold no claims meanwhile: two
                that wait for each other would for ever.
        """
        if self.path is not None and identity not in self._claimed:
            lock = self._lock(identity)
            try:
                lock.acquire(blocking=wait)
            except Timeout:
                return False
            self._claimed[identity] = lock
            self.refresh()
        if done := self.find(identity) is not None:
            self._unlock(identity)
        return not done

    def release(self) -> None:
        """Leave what was claimed to others; what of it is not in the log is theirs to train."""
        for identity in tuple(self._claimed):
            self._unlock(identity)

    def _unlock(self, identity: str) -> None:
        if (lock := self._claimed.pop(identity, None)) is None:
            return
        with suppress(OSError):  # some systems keep a file that is open
            Path(lock.lock_file).unlink()  # who takes the next of that name finds the run in the log
        lock.release()

    def _lock(self, identity: str) -> FileLock:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path.with_name(f"{self.path.name}.{identity[:16]}.lock"))


def _append(path: Path, line: str) -> None:
    """Append in one write, which other processes' writes cannot split; after a torn line, on a new one."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        data = ("\n" * torn + line).encode()
        if (written := os.write(file, data)) < len(data):
            raise OSError(f"{path}: only {written} of {len(data)} bytes of a run could be written; free some space")
    finally:
        os.close(file)


def identity(
    candidate: Candidate, judge_key: str, spec: DataSpec, settings: Settings, *, student: str, seed: int
) -> str:
    """Hash of everything a run's accuracy depends on (but the machine and whether it was compiled)."""
    protocol = settings.protocol
    whole = {
        "row": [candidate.name, candidate.key, candidate.counts],
        "judge": judge_key,
        "protocol": {**protocol.to_dict(), "strategy": protocol.strategy_for(spec)},
        "precision": settings.precision,
        "width": settings.width,
        "student": student,
        "seed": seed,
    }
    known = PUBLISHED.get(spec.name)  # whose runs were logged before by its name alone
    if known is None or (known.mean, known.std) != (spec.mean, spec.std):
        whole["normalised by"] = [spec.mean, spec.std]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bench:
    """Runs candidates against sets of test images, with one progress bar over all runs."""

    judges: Sequence[ClassStore]
    """What students are judged on: rows are of the first, the others' runs go to the log."""
    spec: DataSpec
    settings: Settings
    log: RunLog
    workers: int = 1
    progress: bool = True

    def rows(self, candidates: Sequence[Candidate], students: Sequence[str], seeds: Sequence[int]) -> tuple[Row, ...]:
        """All rows, grouped by student; what the log has is not trained again."""
        about = {
            self._marks(candidate, student, seed)[0]: (candidate, student)
            for candidate in candidates
            for seed in seeds
            for student in students
        }
        left = [mark for mark in about if self.log.find(mark) is None]
        with tqdm(
            total=len(about), initial=len(about) - len(left), unit="run", desc="evaluate", disable=not self.progress
        ) as bar:
            while left:
                try:
                    for task, runs in self._trained(self._missing(candidates, students, seeds), len(left)):
                        candidate, student = about[task.identities[0]]
                        self._record(task, runs, candidate, student)
                        bar.set_postfix_str(f"{candidate.name} {student} {runs[0].accuracy:.1f} %")
                        bar.update(sum(self.log.find(mark) is not None for mark in about) - bar.n)
                finally:
                    self.log.release()
                if left := [mark for mark in about if self.log.find(mark) is None]:
                    bar.set_postfix_str("waiting for others, who are at these runs")
                    self.log.claim(left[0], wait=True)
            bar.update(len(about) - bar.n)
        return tuple(
            _row(candidate, student, [self.log.runs[self._marks(candidate, student, seed)[0]] for seed in seeds])
            for student in students
            for candidate in candidates
        )

    def _trained(self, tasks: Iterator[Task], most: int) -> Iterator[tuple[Task, tuple[Run, ...]]]:
        """The tasks as they finish, ``most`` of them at the most."""
        if min(self.workers, most) < 2:
            return ((task, train_run(task, self.settings)) for task in tasks)
        return train_parallel(tasks, self.settings, min(self.workers, most))

    def _record(self, task: Task, runs: tuple[Run, ...], candidate: Candidate, student: str) -> None:
        for mark, run in reversed(tuple(zip(task.identities, runs, strict=True))):  # the one asked for last
            if self.log.find(mark) is None:
                self.log.add(mark, run, row=candidate.name, basis=candidate.basis, student=student)

    def _missing(
        self, candidates: Sequence[Candidate], students: Sequence[str], seeds: Sequence[int]
    ) -> Iterator[Task]:
        """What is left and no other evaluation is at; a set is drawn when needed, once per seed, for all students."""
        for candidate in candidates:
            for seed in seeds:
                images: ImageSet | None = None
                for student in students:
                    marks = self._marks(candidate, student, seed)
                    self.log.refresh()
                    if self.log.find(marks[0]) is None and self.log.claim(marks[0]):
                        images = images or candidate.draw(seed)
                        yield Task(images, self.judges, self.spec, student, seed, marks)

    def _marks(self, candidate: Candidate, student: str, seed: int) -> tuple[str, ...]:
        """What the runs of one student are found by, one for each judge."""
        return tuple(
            identity(candidate, key, self.spec, self.settings, student=student, seed=seed) for key in self._keys
        )

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        return tuple(f"{self.spec.fingerprint}/{judge.fingerprint()}" for judge in self.judges)


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
