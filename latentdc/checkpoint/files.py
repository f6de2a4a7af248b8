"""Checkpoints of a run: one safetensors file each, written whole or not at all, refused by a run they do not belong to.

A folder holds ``checkpoint-<step>.safetensors`` (the last two) and ``log.jsonl``. No pickles, no generator states: all
randomness is keyed by step (see ``latentdc.seeding``), so tensors, a step and a manifest are the whole state of a run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from latentdc.atomic import digest_tensors, read_tensors, write_tensors
from latentdc.errors import BundleError, InputError

_log = logging.getLogger(__name__)

VERSION = 1
_MANIFEST = "latentdc"
_SHA256 = "sha256"


class Saved(NamedTuple):
    """What a checkpoint holds."""

    step: int
    """Number of steps completed."""
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    """Everything small that is not a tensor; JSON values only."""


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints that a run left in its folder, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


@dataclass
class Checkpoints:
    """The checkpoint folder of one run.

    Args:
        folder: where the files live; made when missing.
        identity: flat JSON description of the run (recipe, data fingerprint, seed …). A checkpoint of a run whose
            identity differs is refused with the differing keys.
        every_steps: save after every so many steps, or None.
        every_seconds: save when so many seconds have passed since the last save, or None.
        keep: how many checkpoints stay on disk.
    """

    folder: Path
    identity: Mapping[str, Any]
    every_steps: int | None = None
    every_seconds: float | None = 60.0
    keep: int = 2

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self._saved_at = time.monotonic()
        if self.keep < 1:
            raise InputError(f"keep = {self.keep}: at least one checkpoint has to stay.")
        for name, value in (("every_steps", self.every_steps), ("every_seconds", self.every_seconds)):
            if value is not None and value <= 0:
                raise InputError(f"checkpoint {name} = {value}: give a positive number, or none for no limit.")

    @property
    def log_path(self) -> Path:
        """The JSONL log of the run."""
        return self.folder / "log.jsonl"

    def last_record(self) -> dict[str, Any]:
        """The last line of the log: step, loss, seconds over all resumes, learning rate; empty without one."""
        try:
            lines = self.log_path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        record: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return record

    def files(self) -> list[Path]:
        """Checkpoints on disk, oldest first."""
        return checkpoints_in(self.folder)

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be written after ``step`` completed steps."""
        by_step = self.every_steps is not None and step % self.every_steps == 0
        by_time = self.every_seconds is not None and time.monotonic() - self._saved_at >= self.every_seconds
        return by_step or by_time

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write one checkpoint atomically and drop those beyond ``keep``."""
        stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        manifest = {
            "version": VERSION,
            "step": step,
            "identity": dict(self.identity),
            "state": dict(state),
        }
        path = self.folder / f"checkpoint-{step:010d}.safetensors"
        text = json.dumps(manifest, sort_keys=True)
        write_tensors(path, stored, {_MANIFEST: text, _SHA256: digest_tensors(stored, text)})
        self._saved_at = time.monotonic()
        # Only older ones go: a file of a later step can only be a damaged one that load() stepped over.
        for old in [file for file in self.files() if file <= path][: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> Saved | None:
        """The newest intact checkpoint, or None when the folder holds none.

        Raises:
            InputError: the checkpoint belongs to a run with another recipe, data set or seed.
            BundleError: there are checkpoints, but none is intact or of a known version.
        """
        files = self.files()
        problems: list[str] = []
        for path in reversed(files):
            try:
                saved, identity = _read(path)
            except BundleError as problem:
                problems.append(f"{path.name}: {problem}")
                _log.warning("Skipping the damaged checkpoint %s (%s).", path, problem)
                continue
            self._check(identity)
            return saved
        if files:
            listed = "; ".join(problems)
            raise BundleError(f"no intact checkpoint in {self.folder}: {listed}. Delete the folder to start over.")
        return None

    def discard_after(self, step: int) -> None:
        """Remove files of steps after ``step`` (damaged ones) and parts a killed process left behind."""
        for path in self.files():
            if int(path.stem.rpartition("-")[2]) > step:
                path.unlink(missing_ok=True)
        for part in self.folder.glob(".checkpoint-*.part"):
            part.unlink(missing_ok=True)

    def _check(self, found: Mapping[str, Any]) -> None:
        if digest(found) == digest(self.identity):
            return
        here, there = json.loads(json.dumps(dict(self.identity))), found
        different = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
        listed = "; ".join(f"{name} is {here.get(name)!r}, was {there.get(name)!r}" for name in different)
        raise InputError(
            f"{self.folder} holds a checkpoint of another run: {listed}. Give another output folder, restore these "
            "values to go on with that run, or delete the folder to start over."
        )


def digest(value: Mapping[str, Any]) -> str:
    """sha256 of a JSON-able mapping, independent of key order."""
    return hashlib.sha256(json.dumps(dict(value), sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> tuple[Saved, dict[str, Any]]:
    tensors, texts = read_tensors(path)
    text = texts.get(_MANIFEST, "{}")
    try:
        manifest = json.loads(text)
        version, identity = manifest["version"], manifest["identity"]
        saved = Saved(manifest["step"], tensors, manifest["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"its manifest cannot be read: {type(error).__name__} {error}") from error
    if version != VERSION:
        raise BundleError(f"version {version!r} is not the known version {VERSION}")
    if texts.get(_SHA256) != digest_tensors(tensors, text):
        raise BundleError("its contents do not match their sha256")
    return saved, identity
