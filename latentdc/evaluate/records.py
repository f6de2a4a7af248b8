"""What an evaluation found, as frozen records that go to ``report.json`` and come back equal."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from latentdc.errors import InputError

VERSION = 1
"""Version of the ``report.json`` layout."""


@dataclass(frozen=True)
class Run:
    """One student trained once on one set."""

    seed: int
    accuracy: float
    """Last-epoch accuracy, per cent."""
    num_images: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """One set under one student architecture."""

    name: str
    """``bundle``, or one of ``latentdc.evaluate.BASELINES``."""
    basis: str
    """What was held equal to the evaluated set: ``equal-images``, ``equal-bytes`` or, its private decoder's bytes
    too, ``equal-total``."""
    student: str
    images_per_class: float
    """Images per class that the student trains on (the mean, where classes differ)."""
    stored_per_class: float
    """Stored rows per class; fewer than the images when a formation makes several images of one row. Of a
    distribution, which stores none, the draws."""
    bytes_per_class: float
    runs: tuple[Run, ...]

    @property
    def accuracy_mean(self) -> float:
        """Mean accuracy over the runs, per cent."""
        return statistics.fmean(run.accuracy for run in self.runs)

    @property
    def accuracy_std(self) -> float | None:
        """Sample standard deviation over the runs (divisor runs − 1), in points; None for one run, which has none."""
        return statistics.stdev(run.accuracy for run in self.runs) if len(self.runs) > 1 else None

    @property
    def num_runs(self) -> int:
        """Number of trained students."""
        return len(self.runs)

    def summary(self) -> dict[str, Any]:
        """The row as ``--json`` prints it; accuracies in per cent."""
        return {
            "name": self.name,
            "basis": self.basis,
            "student": self.student,
            "images_per_class": self.images_per_class,
            "stored_per_class": self.stored_per_class,
            "bytes_per_class": self.bytes_per_class,
            "accuracy_mean": self.accuracy_mean,
            "accuracy_std": self.accuracy_std,
            "num_runs": self.num_runs,
        }


@dataclass(frozen=True)
class Gain:
    """The evaluated set against one random-real row."""

    student: str
    basis: str
    gain_over_random: float
    """Accuracy of the set minus accuracy of the random real images, in fractions."""
    lrs: float
    """Label-robust score in [0, 1]; 0.269 means no gain."""
    computed: str
    """What alpha was: ``IOR`` alone, or ``0.5 IOR - 0.5 HLR`` when the full-data accuracy is known."""


@dataclass(frozen=True)
class Machine:
    """Where the runs were made; numbers of the run that wrote the report."""

    cpu: str
    threads: int
    device: str
    torch: str
    commit: str | None


@dataclass(frozen=True)
class Report:
    """One set evaluated beside its baselines under one protocol."""

    source: str
    """Name of the evaluated folder or object."""
    source_sha256: str
    """Hash over the exported images and targets."""
    protocol: Mapping[str, Any]
    """All values of the protocol."""
    data: str
    fingerprint: str
    """Fingerprint of the real images that baselines were drawn from."""
    split: str
    """``test``, or ``held-out`` (the held-out slice of the training images, for selection)."""
    class_names: tuple[str, ...]
    seeds: tuple[int, ...]
    precision: str
    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    bytes: Mapping[str, int]
    """Bytes of the whole set by line: latents, scales, labels, decoders (or pixels), and of the raw training set."""
    full_accuracy: float | None
    """Accuracy of the same student on all real data, per cent, when it was given."""
    notes: tuple[str, ...]
    """Rows left out and other reservations, each with its reason."""
    machine: Machine
    seconds: float
    """Time spent in the runs of this report, resumed ones included."""
    version: int = VERSION

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return len(self.class_names)

    def summary(self) -> dict[str, Any]:
        """What ``latentdc evaluate --json`` prints."""
        return {
            "protocol": self.protocol["name"],
            "data": self.data,
            "num_classes": self.num_classes,
            "split": self.split,
            "precision": self.precision,
            "rows": [row.summary() for row in self.rows],
            "gains": [asdict(gain) for gain in self.gains],
            "bytes": dict(self.bytes),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The whole report; rows also carry mean, deviation and number of runs, for readers without latentdc."""
        whole = {"version": self.version, "num_classes": self.num_classes} | asdict(self)
        for row, plain in zip(self.rows, whole["rows"], strict=True):
            plain |= {"accuracy_mean": row.accuracy_mean, "accuracy_std": row.accuracy_std, "num_runs": row.num_runs}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: not JSON, not a report, or of another version.
        """
        try:
            raw = json.loads(text)
            version = raw["version"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"not a latentdc report ({error}); run `latentdc evaluate` to write one") from error
        if version != VERSION:
            raise InputError(f"report of version {version}; this latentdc reads version {VERSION}: evaluate again")
        try:
            return _report(raw)
        except (KeyError, TypeError) as error:
            raise InputError(f"report.json is incomplete: {error}; run `latentdc evaluate` again") from error


def _picked(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``raw`` that ``kind`` has fields for; a missing one raises KeyError."""
    return {field.name: raw[field.name] for field in fields(kind)}


def _report(raw: Mapping[str, Any]) -> Report:
    """Report of parsed JSON."""
    rows = tuple(
        Row(**_picked(Row, row) | {"runs": tuple(Run(**_picked(Run, run)) for run in row["runs"])})
        for row in raw["rows"]
    )
    return Report(
        **_picked(Report, raw)
        | {
            "rows": rows,
            "gains": tuple(Gain(**_picked(Gain, gain)) for gain in raw["gains"]),
            "machine": Machine(**_picked(Machine, raw["machine"])),
            "class_names": tuple(raw["class_names"]),
            "seeds": tuple(raw["seeds"]),
            "notes": tuple(raw["notes"]),
        }
    )
