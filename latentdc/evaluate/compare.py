"""``evaluate``: a condensed set and its honest baselines under one protocol."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

import latentdc
from latentdc.bundle import Bundle
from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.devices import check_precision
from latentdc.errors import DataError, InputError, unknown
from latentdc.evaluate.baselines import USUAL, candidates
from latentdc.evaluate.ddranking import label_robust_score
from latentdc.evaluate.protocols import Protocol, find_protocol
from latentdc.evaluate.records import Gain, Machine, Report, Row
from latentdc.evaluate.runs import Bench, RunLog
from latentdc.evaluate.sets import Subject, subject_of
from latentdc.evaluate.splits import split_data
from latentdc.evaluate.training import Settings
from latentdc.machine import processor
from latentdc.networks import ARCHITECTURES
from latentdc.networks.base import resolve


def evaluate(
    source: str | Path | Bundle | ClassStore | Subject,
    data: Data,
    protocol: str | Protocol = "dsa-1000",
    *,
    students: Sequence[str] = ("convnet",),
    seeds: int | Sequence[int] = 5,
    baselines: Sequence[str] = USUAL,
    split: str = "test",
    precision: str = "fp32",
    compile: bool = False,
    width: int | None = None,
    device: str = "cpu",
    full_accuracy: float | None = None,
    runs: str | Path | None = None,
    also_on: Sequence[ClassStore] = (),
    workers: int = 1,
    progress: bool = True,
) -> Report:
    """Train students on a set and on its baselines, and report their accuracies on data the set never saw.

    Args:
        source: a bundle (folder or object), a decoder (its folder, or a shipped one's name: the real images passed
            through it), any folder of images in class folders, or a ``ClassStore``.
        data: the real data: baselines come from its training images, accuracy from its test images.
        protocol: a name of ``PROTOCOLS`` or a ``Protocol``.
        students: architectures; each is trained on every row.
        seeds: how many seeds (0, 1, …), or which; random, medoid and undistilled sets are redrawn with each.
        baselines: names of ``BASELINES``; empty for none.
        split: ``"test"``, or ``"held-out"``: judge on the held-out slice of the training images and draw the baselines
            from the rest; for choosing between recipes without looking at test data.
        precision: ``"fp32"`` or ``"bf16"``.
        compile: compile the students' training step.
        width: width of the students, for quick checks; None is the published width.
        device: where students train.
        full_accuracy: per cent on all real data under this protocol, if known: completes DD-Ranking's score.
        runs: a ``runs.jsonl``; finished runs are appended to it and skipped when evaluated again.
        also_on: further real images to judge the same students on; what they reach goes to ``runs`` alone, where an
            evaluation on those images, with the same training images, finds it and trains nothing. Needs ``runs``.
        workers: train this many students at once, in processes that share the threads; pays off for small sets.
        progress: show a bar on standard error.

    Raises:
        InputError: an unknown protocol, student, baseline, split or precision, or no seeds.
        DataError: the set, or what it is also judged on, does not fit the data, or the data has no test images.
        BundleError: the bundle is damaged.
    """
    plan, wanted = find_protocol(protocol), _seeds(seeds)
    check_students(students, precision)
    _check_full(full_accuracy, students)
    if workers < 1:
        raise InputError(f"workers = {workers}: give a number of processes, at least 1")
    real, judge = split_data(data.train, data.test, split)
    _must_fit(also_on, real, runs)
    subject = subject_of(source, real)
    plans, notes = candidates(subject, real, baselines, width=width)
    settings = Settings(plan, precision, compile, width, device)
    judges, log = (judge, *also_on), RunLog(Path(runs) if runs else None)
    rows = Bench(judges, real.spec, settings, log, workers, progress).rows(plans, students, wanted)
    return Report(
        source=subject.name,
        source_sha256=subject.images.sha256(),
        protocol=plan.to_dict(),
        data=real.spec.name,
        fingerprint=real.spec.fingerprint,
        split=split,
        class_names=real.spec.class_names,
        seeds=wanted,
        precision=precision,
        rows=rows,
        gains=gains(rows, full_accuracy if subject.images.hard else None),
        bytes={**subject.bytes, "raw_set": data.train.images.numel() + len(data.train)},
        full_accuracy=full_accuracy,
        notes=(*notes, *_reservations(subject, real, data, split, width)),
        machine=machine(device),
        seconds=sum(run.seconds for row in rows for run in row.runs),
    )


def _check_full(full_accuracy: float | None, students: Sequence[str]) -> None:
    if full_accuracy is None:
        return
    if not 0 <= full_accuracy <= 100:
        raise InputError(f"full_accuracy = {full_accuracy}: give per cent, between 0 and 100")
    if len(students) > 1:
        raise InputError(
            f"full_accuracy = {full_accuracy:g} is that of one student, and there are {len(students)} ("
            f"{', '.join(students)}): evaluate them one by one"
        )


def gains(rows: Sequence[Row], full_accuracy: float | None = None) -> tuple[Gain, ...]:
    """Gain of the set over each random-real row of the same student, in fractions, and DD-Ranking's score of it.

    Args:
        rows: rows of one report.
        full_accuracy: per cent on all real data; adds the hard-label part to the score, so that the set's labels must
            be hard.
    """
    full = None if full_accuracy is None else full_accuracy / 100
    found = []
    for row in rows:
        if row.name != "random-real":
            continue
        ours = next(other for other in rows if other.name == "bundle" and other.student == row.student)
        synthetic, random = ours.accuracy_mean / 100, row.accuracy_mean / 100
        found.append(
            Gain(
                student=row.student,
                basis=row.basis,
                gain_over_random=synthetic - random,
                lrs=label_robust_score(synthetic, random, full),
                computed="IOR" if full is None else "0.5 IOR - 0.5 HLR",
            )
        )
    return tuple(found)


def machine(device: str) -> Machine:
    """Processor, threads, device, torch version and, in a clone, the commit."""
    cpu = f"{processor()} ({os.cpu_count()} logical cores)"
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return Machine(cpu, torch.get_num_threads(), name, torch.__version__, _commit())


def _commit() -> str | None:
    """Commit of the clone latentdc runs from, ``-dirty`` when its code, recipes or checkpoints were edited.

    None without a clone or git. Other files do not count: a log of finished students grows while it is written.
    """
    root = Path(latentdc.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    code = [name for name in ("latentdc", "pipelines", "checkpoints") if (root / name).exists()]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        edited = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-dirty" if edited.returncode else "")


def _must_fit(also_on: Sequence[ClassStore], real: ClassStore, runs: str | Path | None) -> None:
    """Refuse further judges that students cannot be judged on, or whose figures would be lost."""
    if also_on and runs is None:
        raise InputError("also_on without runs: there is no file to keep what students reach on it. Give runs.")
    for other in also_on:
        if (other.spec.image_shape, other.spec.class_names) != (real.spec.image_shape, real.spec.class_names):
            raise DataError(f"also_on: {other.spec.name} has other classes or image shapes than {real.spec.name}.")


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds to run; a number n is 0 … n − 1."""
    wanted = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not wanted or len(set(wanted)) != len(wanted):
        raise InputError(f"seeds = {seeds}: give a number of at least 1, or a list of different seeds")
    return wanted


def check_students(students: Sequence[str], precision: str) -> None:
    """Refuse what no student can be trained as, before any work.

    Raises:
        InputError: no students, or an unknown student or precision, or a student that cannot be imported.
    """
    if not students:
        raise InputError(f"no students: name at least one of {', '.join(ARCHITECTURES)}")
    for student in students:
        if student not in ARCHITECTURES and ":" not in student:
            raise InputError(unknown("student", student, ARCHITECTURES))
        resolve(student)  # one of somebody's own may not be importable
    check_precision(precision)


def _reservations(subject: Subject, real: ClassStore, data: Data, split: str, width: int | None) -> list[str]:
    """What a reader must know to trust the figures."""
    notes = [subject.note] if subject.note else []
    if subject.fingerprint and subject.fingerprint != real.spec.fingerprint:
        if split == "held-out" and subject.fingerprint == data.train.spec.fingerprint:
            notes.append("the bundle was condensed from all training images, the held-out ones too: no fair selection")
        else:
            notes.append("the bundle was condensed from other images than the baselines are drawn from")
    if subject.bundle is not None and subject.bundle.spec.mirror != real.spec.mirror:
        made, judged = ("with", "without") if real.spec.mirror else ("without", "with")
        notes.append(f"the bundle was condensed {made} --no-mirror, its students are trained {judged} it")
    if not subject.images.hard:
        notes.append(
            "the set's labels are soft, random-real's hard: the gain is of both, and the score is without its HLR"
        )
    if width is not None:
        notes.append(f"students of width {width}, not the published one")
    return notes
