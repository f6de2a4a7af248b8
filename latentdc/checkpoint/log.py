"""The JSONL log of a run, kept consistent with the checkpoint the run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from latentdc.atomic import replacing


class StepLog:
    """JSONL log of a run: one object a step, cut back to the resumed step when opened.

    Args:
        path: the file; None keeps no log.
        step: lines of later steps (written after the checkpoint a run resumes from) and a torn last line are removed.
    """

    def __init__(self, path: Path | None, *, step: int = 0) -> None:
        self._path = path
        if path is None:
            return
        kept = [line for line in path.read_text().splitlines() if _within(line, step)] if path.exists() else []
        with replacing(path) as part:
            part.write_text("".join(f"{line}\n" for line in kept))

    def write(self, record: Mapping[str, float | dict[str, float]]) -> None:
        """Append one line."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(dict(record)) + "\n")


def _within(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False
