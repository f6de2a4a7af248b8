"""Atomic training checkpoints: one safetensors file of tensors with one JSON object in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from latentdc.errors import BundleError

Facts = dict[str, int | float | str]

_FORMAT = "latentdc-fit-1"


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Write tensors and facts to one file; a crash at any moment leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, str(partial), metadata={"format": _FORMAT, "facts": json.dumps(facts, sort_keys=True)})
    with partial.open("rb") as handle:
        os.fsync(handle.fileno())
    partial.replace(path)


def load_state(path: Path) -> tuple[dict[str, Tensor], Facts]:
    """Read what ``save_state`` wrote.

    Raises:
        BundleError: the file is damaged or was written by something else.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a readable checkpoint ({error}). Remove it to start anew.") from error
    if metadata.get("format") != _FORMAT:
        raise BundleError(f"{path}: written as {metadata.get('format')!r}, this version reads {_FORMAT!r}.")
    facts: Facts = json.loads(metadata["facts"])
    return tensors, facts


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an Adam-like optimiser as named tensors ``prefix.<parameter number>.<entry>``."""
    state: dict[int, dict[str, Tensor]] = optimiser.state_dict()["state"]
    return {f"{prefix}.{number}.{name}": value for number, entry in state.items() for name, value in entry.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what ``optimiser_tensors`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            number, entry = name.removeprefix(prefix + ".").split(".")
            state.setdefault(int(number), {})[entry] = value.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
