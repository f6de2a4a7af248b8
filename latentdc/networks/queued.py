"""A queue of networks of many ages, which train on real images when they are visited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.networks.base import Network
from latentdc.networks.infer import accuracy
from latentdc.networks.pool import Pool
from latentdc.networks.train import TrainSpec
from latentdc.networks.trained import Trainer
from latentdc.seeding import key, stream
from latentdc.types import Batch, DataSpec

_BATCH = 256
_AT_FIRST = 3


class QueuePool(Pool):
    """A queue of networks: each step visits two at random, matches under the first and trains both on real images.

    The queue begins with three fresh networks. Every ``interval`` steps a fresh one joins, and beyond ``num`` the
    oldest leaves. A visit is ``visit_steps`` mini-batches of 256, with a fresh optimiser. Each knows its accuracy
    after its last visit, on 256 of the images of that; a fresh one's is 0.

    Args:
        arch: architecture name or ``"package.module:Class"``.
        spec: the data the networks see.
        seed: the run's seed.
        trainer: how a network is trained, and on which real images.
        width: see ``latentdc.networks.base.build``.
        num: most networks in the queue; a checkpoint holds them all.
        interval: steps between two arrivals.
        visit_steps: mini-batches of a visit.

    Raises:
        InputError: a value out of range; when called, a step that is not the next one.

    *Reference:* Zhao et al. 2023 (IDM), CVPR, arXiv 2307.09742, §4.2.
    *Differs from the authors' code:* there each network keeps its momentum between visits; the two that train are
    drawn independently of the one that is matched, which here is always one of them; and the accuracy is a running mean
    over the mini-batches since the last evaluation, in training mode, where ours is of 256 images just trained on, in
    eval mode and without augmentation.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2023idm",)
    needs_trainer: ClassVar[bool] = True

    def __init__(
        self,
        arch: str,
        spec: DataSpec,
        seed: int,
        trainer: Trainer,
        width: int | None = None,
        *,
        num: int = 100,
        interval: int = 30,
        visit_steps: int = 10,
    ) -> None:
        super().__init__(arch, spec, seed, width)
        for name, value, least in (("num", num, 2), ("interval", interval, 1), ("visit_steps", visit_steps, 1)):
            if value < least:
                raise InputError(f"{name} = {value}: give at least {least}")
        self.trainer, self.num, self.interval, self.visit_steps = trainer, num, interval, visit_steps
        self._nets = self._first()
        self._step = 0

    def at(self, step: int) -> Network:
        """The first of the two networks that this step visits.

        Raises:
            InputError: a step whose networks follow from steps that were not made.
        """
        if step == 0 and self._step:  # another run with the same source
            self._nets, self._step = self._first(), 0
        if step != self._step:
            raise InputError(
                f"step {step}: the networks stand at step {self._step} and train with every step; begin at step 0 or "
                "go on from a checkpoint"
            )
        return self._nets[self._visited()[0]]

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """Train the two networks visited; let one join and one leave when it is time to."""
        del decode
        self.at(step)
        plan = TrainSpec(1, batch_size=_BATCH, milestones=())
        for index in self._visited():
            x, y = self.trainer.some(_BATCH * self.visit_steps, stream(self.seed, "queue-images", step, index))
            net = self._nets[index]
            self.trainer.train(net, x, y, plan, seed=key(self.seed, "queue-training", step, index))
            net.accuracy = accuracy(net, x[-_BATCH:], y[-_BATCH:].argmax(1)) / 100
        self._step += 1
        if self._step % self.interval == 0:
            newest = max(self._nets) + 1
            self._nets[newest] = self._fresh(newest)
            if len(self._nets) > self.num:
                del self._nets[min(self._nets)]

    def to(self, device: torch.device | str) -> QueuePool:
        """Hand out networks on this device from now on; returns itself."""
        super().to(device)
        for net in self._nets.values():
            net.to(self.device)
        return self

    def state_bytes(self) -> int:
        """Bytes of a full queue."""
        return super().state_bytes() // len(self._nets) * self.num

    def identity(self) -> dict[str, Any]:
        """What tells one pool from another."""
        own = {"num": self.num, "interval": self.interval, "visit_steps": self.visit_steps}
        return {**super().identity(), **own}

    def state_dict(self) -> dict[str, Any]:
        """The identity, the step, and the weights of every network."""
        weights: dict[str, Tensor] = {
            f"{index}/{name}": value for index, net in self._nets.items() for name, value in net.state_dict().items()
        }
        accuracies = {str(index): net.accuracy for index, net in self._nets.items()}
        return {**super().state_dict(), "step": self._step, "accuracies": accuracies, **weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self._step = state["step"]
        weights = [name for name, value in state.items() if torch.is_tensor(value)]
        self._nets = {}
        for index in sorted({int(name.split("/")[0]) for name in weights}):
            self._nets[index] = self.network(index)
            self._nets[index].accuracy = state["accuracies"][str(index)]
            own = f"{index}/"
            self._nets[index].load_state_dict(
                {name.removeprefix(own): state[name] for name in weights if name.startswith(own)}
            )

    def _first(self) -> dict[int, Network]:
        return {index: self._fresh(index) for index in range(min(_AT_FIRST, self.num))}

    def _fresh(self, index: int) -> Network:
        net = self.network(index)
        net.accuracy = 0.0
        return net

    def _visited(self) -> list[int]:
        order = torch.randperm(len(self._nets), generator=stream(self.seed, "queue-visit", self._step))
        present = sorted(self._nets)
        return [present[place] for place in order[:2].tolist()]
