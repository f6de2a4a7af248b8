"""Checkpoints of a run: atomic safetensors files, a JSONL log cut back on resume, and the state they keep."""

from latentdc.checkpoint.files import Checkpoints, Saved, checkpoints_in, digest
from latentdc.checkpoint.log import StepLog
from latentdc.checkpoint.state import RunState, optimizer_tensors, restore_optimizer, uninterrupted

__all__ = [
    "Checkpoints",
    "RunState",
    "Saved",
    "StepLog",
    "checkpoints_in",
    "digest",
    "optimizer_tensors",
    "restore_optimizer",
    "uninterrupted",
]
