"""Runs the benchmarks and writes one record: ``python tests/bench/measure.py --note "…"``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from latentdc.machine import processor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORDS = HERE / "records"
_STATS = {"median": "median_s", "iqr": "iqr_s", "min": "min_s", "rounds": "rounds"}


def pytest_command(report: Path, only: str | None) -> list[str]:
    """The command of the README in this folder, its report as JSON."""
    files = [str(path.relative_to(ROOT)) for path in sorted(HERE.glob("bench_*.py"))]
    options = ["--benchmark-timer=time.process_time", f"--benchmark-json={report}", *(["-k", only] if only else [])]
    return [sys.executable, "-m", "pytest", "-p", "benchmark", *options, *files]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def code_now() -> dict[str, Any]:
    """The commit, and which files of the code differ from it."""
    changed = _git("diff", "--name-only", "HEAD", "--", "latentdc", "tests/bench")
    return {"commit": _git("rev-parse", "HEAD"), "changed_files": changed.splitlines()}


def condensed(report: dict[str, Any], note: str, load: Sequence[float], code: dict[str, Any]) -> dict[str, Any]:
    """The record of pytest-benchmark's JSON; see ``record_of``."""
    results = {
        found["name"]: {short: found["stats"][name] for name, short in _STATS.items()} | found["extra_info"]
        for found in report["benchmarks"]
    }
    cpu = report["machine_info"].get("cpu", {}).get("brand_raw")
    return record_of(results, note, load, code, clock="CPU time of the process (time.process_time)", cpu=cpu)


def record_of(
    results: dict[str, Any],
    note: str,
    load: Sequence[float],
    code: dict[str, Any],
    *,
    clock: str,
    cpu: str | None = None,
) -> dict[str, Any]:
    """A record: what was measured, on what, at which commit; no name of a machine or of a folder.

    Args:
        results: figures by the name of what was measured.
        note: under which circumstances.
        load: load averages of 1, 5 and 15 minutes before the run.
        code: ``code_now()`` before the run.
        clock: what seconds are.
        cpu: name of the processor; None to look it up.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H%MZ"),
        **code,
        "machine": {
            "cpu": cpu or processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "threads": torch.get_num_threads() if cpu is None else 1,
            "load_before": [round(value, 2) for value in load],
        },
        "clock": clock,
        "note": note,
        "results": results,
    }


def main() -> int:
    """Measure and write the record; the exit status is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="", help="circumstances, for instance what else ran on the machine")
    parser.add_argument("-k", dest="only", help="measure only these, as pytest's -k")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the record")
    given = parser.parse_args()
    load, code = os.getloadavg(), code_now()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = pytest_command(report, given.only)
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
        if not report.exists() or not report.stat().st_size:
            sys.stderr.write("nothing was measured\n")
            return done.returncode or 1
        record = condensed(json.loads(report.read_text(encoding="utf-8")), given.note, load, code)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{record['date']}-{record['commit'][:10]}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
