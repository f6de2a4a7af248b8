"""Peak memory of a workload: how far the resident set of a fresh process rises above its inputs.

Run as ``python -m bench.peak WORKLOAD`` from ``tests``; writes one JSON object. torch allocates outside Python, so
tracemalloc sees nothing of it. On Linux the high-water mark is reset between making the inputs and the work;
elsewhere the rise of the whole process's maximum is given, which can only be too small.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _field(name: str) -> int:
    """Bytes of one line of the process's status."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _maximum() -> int:
    """Largest resident set of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def rise(name: str) -> dict[str, int | str]:
    """Bytes by which one run of a workload raises this process's resident set."""
    import torch
    from bench.workloads import prepared

    torch.set_num_threads(1)
    work = prepared(name)
    try:
        _RESET.write_text("5")
        before, how = _field("VmRSS"), "VmHWM"
    except OSError:
        before, how = _maximum(), "ru_maxrss"
    work()
    after = _field("VmHWM") if how == "VmHWM" else _maximum()
    return {"peak_bytes": max(after - before, 0), "method": how}


def peak(name: str) -> dict[str, int | str]:
    """The same, measured in a process of its own.

    Raises:
        RuntimeError: the process failed; with the end of its output.
    """
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "bench.peak", name],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"peak memory of {name}: {done.stderr[-2000:]}")
    found: dict[str, int | str] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(rise(sys.argv[1])) + "\n")
