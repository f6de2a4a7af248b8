"""What a stated time depends on."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Model name of the processor; its architecture where the system tells no more."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
