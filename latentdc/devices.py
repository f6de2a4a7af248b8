"""Where to compute: the device a user named, or the best there is; and the processes of a run."""

# The functions of accelerate carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
import logging
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentdc.errors import InputError, unknown

if TYPE_CHECKING:
    from accelerate.accelerator import Accelerator

_log = logging.getLogger(__name__)
_KNOWN = ("cpu", "cuda", "mps", "xpu")
_PRECISIONS = ("fp32", "bf16")
_PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: one of them may be taking a sketch of the whole set."""


def device_of(asked: str | torch.device | None = None) -> torch.device:
    """The device to compute on.

    Args:
        asked: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"xpu"``; None for the best there is, which is CUDA or
            else the CPU (``mps`` lacks the float64 that sums need, so it has to be asked for). Under ``torchrun`` a
            device without a number is each process's own.

    Raises:
        InputError: a name that is misspelt, a device this machine does not have, or a number that several processes
            would share.
    """
    text = ("cuda" if torch.cuda.is_available() else "cpu") if asked is None else str(asked)
    kind, colon, number = text.partition(":")
    if kind not in _KNOWN:
        raise InputError(f"device {unknown('device', text, _KNOWN)} Give one of them.")
    if colon and not number.isdecimal():
        raise InputError(f'device "{text}": after the colon comes the number of the device, for instance {kind}:0.')
    if kind == "cpu":
        return torch.device("cpu")
    count = _count(kind)
    if not count:
        raise InputError(f'device "{text}": torch {torch.__version__} sees no {kind} device here. Leave --device out.')
    if number and int(number) >= count:
        raise InputError(f'device "{text}": there are {count} here; give {kind}:0 to {kind}:{count - 1}.')
    if several_processes() and kind != "mps":
        if number:
            raise InputError(f'device "{text}": {_world()} processes cannot share it; give "{kind}", one for each.')
        return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")) % count)
    return torch.device(text)


def _count(kind: str) -> int:
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; others imitate it, slowly.

    Of CPUs these are those with AVX-512 (bf16, or at least its byte and word instructions), AMX, or ARM's BF16, as
    oneDNN tells; torch built without oneDNN has no fast convolutions in it at all.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        told = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return torch.backends.mkldnn.is_available() and told is not None and bool(told())
    return True


def check_precision(precision: str, device: torch.device | None = None) -> None:
    """Look at a precision before time is spent: warns, once a process, of bf16 on a device that imitates it.

    Args:
        precision: ``"fp32"`` or ``"bf16"``.
        device: where it is to be; no warning without.

    Raises:
        InputError: another precision.
    """
    if precision not in _PRECISIONS:
        raise InputError(f"precision = {unknown('precision', precision, _PRECISIONS)}")
    if precision == "bf16" and device is not None:
        _warn_of_bf16(device)


@functools.cache
def _warn_of_bf16(device: torch.device) -> None:
    if not has_bf16(device):
        _log.warning(
            'precision = "bf16": this %s has no instructions for it and imitates it, slowly (a convolution on a CPU '
            'without AVX-512 takes tens of times as long as in fp32). Take "fp32" here (--precision fp32).',
            "CPU" if device.type == "cpu" else "GPU",
        )


def free_bytes(device: torch.device) -> int:
    """Memory that could be taken now: the device's, or the machine's within the limit set for this process's group.

    Where the system does not tell, 4 GB are assumed.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(kept)
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with suppress(OSError, ValueError):  # a container's limit is a number, or "max"
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min(found, default=4 * 10**9), 0)


def several_processes() -> bool:
    """Whether ``torchrun`` (or ``accelerate launch``) started this process as one of several."""
    return _world() > 1


def is_main_process() -> bool:
    """Whether this process speaks for all of them; known without waiting for the others."""
    return not several_processes() or os.environ.get("RANK", "0") == "0"


def accelerator_on(device: torch.device) -> Accelerator:
    """The processes of a run.

    accelerate keeps one state per Python process, which later runs share whatever their device and precision: so it is
    asked for neither, and both are handed to the loop beside it.
    """
    from accelerate.accelerator import Accelerator
    from accelerate.utils.dataclasses import InitProcessGroupKwargs

    # Processes on the CPU talk through another backend than those on GPUs; a single process needs none.
    on_cpu = several_processes() and device.type == "cpu"
    return Accelerator(cpu=on_cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
