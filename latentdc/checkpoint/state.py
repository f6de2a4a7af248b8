"""State of an optimisation run: step, learnables, optimiser moments, seconds; where it is kept, how it is resumed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from latentdc.checkpoint.files import Checkpoints
from latentdc.checkpoint.log import StepLog
from latentdc.errors import DivergenceError


class Stateful(Protocol):
    """Something with a state of its own."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore or check a saved state."""
        ...


class RunState:
    """State of a run and where it is kept.

    Args:
        learnables: the tensors the run changes, by name.
        optimizer: over these tensors.
        checkpoints: where the state is kept; None keeps nothing.
        part: anything else whose state belongs to the run, for instance a source whose networks train.
        is_main: whether this process writes; every process reads.
    """

    def __init__(
        self,
        learnables: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints | None,
        *,
        part: Stateful | None = None,
        is_main: bool = True,
    ) -> None:
        self.step = 0
        self.optimizer = optimizer
        self.learnables = learnables
        self._part = part
        self._checkpoints = checkpoints
        self._is_main = is_main
        self._saved_step: int | None = None
        self._under_way = False
        self._earlier_seconds = 0.0
        self._started = time.monotonic()
        self._log = StepLog(None)

    @property
    def seconds(self) -> float:
        """Time spent, over all resumes."""
        return self._earlier_seconds + time.monotonic() - self._started

    @property
    def lr(self) -> float | dict[str, float]:
        """Learning rate of the coming step: of the only parameter group, or of each by its name."""
        groups = self.optimizer.param_groups
        if len(groups) == 1:
            return float(groups[0]["lr"])
        return {group.get("name", str(number)): float(group["lr"]) for number, group in enumerate(groups)}

    def scale_lr(self, share: float) -> None:
        """Set every group's rate to a share of the one it began with."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one; every process reads it."""
        if self._checkpoints is None:
            return
        saved = self._checkpoints.load()
        if saved is not None:
            with torch.no_grad():
                for name, parameter in self.learnables.items():
                    parameter.copy_(saved.tensors[f"learnable/{name}"])
            restore_optimizer(self.optimizer, _under("optimizer/", saved.tensors))
            if self._part is not None:
                self._part.load_state_dict({**saved.state["part"], **_under("part/", saved.tensors)})
            self.step = self._saved_step = saved.step
            self._earlier_seconds = saved.state["seconds"]
        if self._is_main:
            self._checkpoints.discard_after(self.step)
            self._log = StepLog(self._checkpoints.log_path, step=self.step)

    def update(self) -> None:
        """One optimiser step; whatever else belongs to it has to follow before it is recorded."""
        self._under_way = True
        self.optimizer.step()
        self.step += 1

    def record(self, loss: float) -> None:
        """Log the step just made and save when it is time to."""
        self._under_way = False
        self._log.write({"step": self.step, "loss": loss, "seconds": round(self.seconds, 4), "lr": self.lr})
        if self._checkpoints is not None and self._checkpoints.due(self.step):
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this step unless it is on disk already; the main process does it."""
        if self._checkpoints is None or not self._is_main or self._saved_step == self.step:
            return
        tensors = {f"learnable/{name}": parameter for name, parameter in self.learnables.items()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        part = {} if self._part is None else dict(self._part.state_dict())
        tensors |= {f"part/{name}": value for name, value in part.items() if torch.is_tensor(value)}
        small = {name: value for name, value in part.items() if not torch.is_tensor(value)}
        self._checkpoints.save(self.step, tensors, {"seconds": self.seconds, "part": small})
        self._saved_step = self.step

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Save when the block ends, is interrupted, or diverges while the learnables are still finite."""
        try:
            yield
        except (KeyboardInterrupt, DivergenceError):
            # A step that broke off half-way, in a pool whose network diverged, is no state to go on from.
            if not self._under_way and all(bool(torch.isfinite(each).all()) for each in self.learnables.values()):
                self.save()
            raise
        self.save()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that an update is never left half made."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals only reach the main thread.
        return
    pending: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        pending.append(number)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        signal.raise_signal(signal.SIGINT)  # Whoever handled it before does so now; ignored, it stays ignored.


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of an optimiser as flat tensors ``<parameter>/<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": value
        for index, each in state.items()
        for name, value in each.items()
        if torch.is_tensor(value)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        index, _, name = full.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
