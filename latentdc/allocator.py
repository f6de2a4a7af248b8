"""What becomes of freed memory on a CPU; for programs of ours, never on import."""

from __future__ import annotations

import ctypes
import os


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory in the process instead of returning it to the system after every large tensor.

    Training on a CPU frees and asks again for the same tens of megabytes at every layer, and each time the system hands
    out zeroed pages: without that, a ConvNet trains 1.3 to 1.7 times as fast. The process keeps its peak memory until
    it ends, so this is for programs of ours (the command line), never done on import.

    Returns:
        Whether it took effect (False where the C library is not glibc).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 * 2**20))
    done = [mallopt(option, value) == 1 for option, value in settings]
    return all(done)
