"""Pools whose networks train while a set is condensed: on the set itself or on real images, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from latentdc.errors import DivergenceError, InputError
from latentdc.networks.base import Network
from latentdc.networks.infer import device_of, to_float
from latentdc.networks.pool import Pool
from latentdc.networks.train import Augment, Mix, TrainSpec, sgd, train_student
from latentdc.seeding import key, stream
from latentdc.types import Batch, DataSpec

_SHORT_SECONDS = 3
"""Trainings that are over by then show no bar."""


@dataclass(frozen=True, eq=False)
class Trainer:
    """How the networks of a pool are trained, and the real images they may be trained on."""

    x: Tensor
    """Real images ``(n, c, h, w)``, uint8."""
    y: Tensor
    """Their classes ``(n,)``, int64."""
    num_classes: int
    augment: Augment | None = None
    mix: Mix | None = None
    precision: str = "fp32"
    compile: bool = False
    progress: bool = False
    """Show a bar on standard error for a training that takes longer than some seconds."""

    def some(self, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """``num`` real images, distinct while there are that many, and their targets ``(num, k)``."""
        rounds = [torch.randperm(len(self.x), generator=rng) for _ in range(-(-num // len(self.x)))]
        rows = torch.cat(rounds)[:num].to(self.x.device)
        return self.x[rows], functional.one_hot(self.y[rows], self.num_classes)

    def train(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        spec: TrainSpec,
        *,
        w: Tensor | None = None,
        optimiser: torch.optim.Optimizer | None = None,
        seed: int,
    ) -> None:
        """Train a network of a pool where it stands, and freeze it again; see ``train_student``."""
        network.requires_grad_(True)
        with tqdm(
            total=spec.passes,
            desc="training a network",
            unit="pass",
            leave=False,
            delay=_SHORT_SECONDS,
            disable=not self.progress,
        ) as bar:
            train_student(
                network,
                x,
                y,
                spec,
                w=w,
                augment=self.augment,
                mix=self.mix,
                optimiser=optimiser,
                seed=seed,
                precision=self.precision,
                compile=self.compile,
                progress=lambda done, _: bar.update(done - bar.n),
            )
        network.eval().requires_grad_(False).zero_grad(set_to_none=True)
        # The loss of a pass is looked at before its last update.
        with torch.no_grad():
            logits = network(to_float(x[:1].to(device_of(network))))
        if not bool(torch.isfinite(logits).all()):
            raise DivergenceError(
                f"a network of the pool diverged in training at lr = {spec.lr}: lower source.pool.lr where the pool "
                "has one, or look for NaN in the images"
            )

    def optimiser(self, network: Network, spec: TrainSpec) -> torch.optim.Optimizer:
        """One that goes on over several calls of ``train``."""
        optimiser = sgd(network.requires_grad_(True), spec)
        network.requires_grad_(False)
        return optimiser


class TrainedPool(Pool):
    """One network that trains a little after every step, exchanged for a fresh one every ``restart`` steps.

    Gradient matching follows a network along a training: on the set being made (DC, DSA: ``on = "syn"``, ``epochs``
    passes over all of its images) or on real images (IDC, DREAM: ``on = "real"``, ``epochs`` passes over ``num_images``
    random ones, another draw after every step). The optimiser, and its momentum, lives as long as the network.

    Args:
        arch: architecture name or ``"package.module:Class"``.
        spec: the data the networks see.
        seed: the run's seed.
        trainer: how a network is trained, and on which real images.
        width: see ``latentdc.networks.base.build``.
        on: ``"syn"`` or ``"real"``.
        restart: steps that a network lives.
        epochs: passes after a step.
        num_images: real images of such a pass.
        batch_size: of the mini-batches.
        lr: learning rate, constant.
        momentum: of SGD.
        weight_decay: of SGD.

    Raises:
        InputError: a value out of range; when called, a step that is not the next one.

    *Reference:* Zhao, Mopuri and Bilen 2021 (DC), arXiv 2006.05929, algorithm 1; Kim et al. 2022 (IDC), arXiv
    2205.14959, algorithm 1.
    """

    needs_trainer: ClassVar[bool] = True

    @classmethod
    def cite_for(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Who trained networks on the set, or on real images."""
        return ("zhao2021dc",) if options.get("on", "real") == "syn" else ("kim2022idc",)

    def __init__(
        self,
        arch: str,
        spec: DataSpec,
        seed: int,
        trainer: Trainer,
        width: int | None = None,
        *,
        on: str = "real",
        restart: int = 100,
        epochs: int = 1,
        num_images: int = 500,
        batch_size: int = 64,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(arch, spec, seed, width)
        if on not in ("syn", "real"):
            raise InputError(f'on = "{on}": networks train on "syn", the set being made, or on "real" images')
        for name, value in {"restart": restart, "epochs": epochs, "num_images": num_images}.items():
            if value < 1:
                raise InputError(f"{name} = {value}: give at least 1")
        self.trainer, self.on, self.restart, self.num_images = trainer, on, restart, num_images
        self.plan = TrainSpec(epochs, lr, momentum, weight_decay, batch_size, milestones=())
        self._net: Network | None = None
        self._step = -1
        self._optimiser: torch.optim.Optimizer | None = None

    def at(self, step: int) -> Network:
        """The network as it stands at this step.

        Raises:
            InputError: a step whose network follows from steps that were not made.
        """
        if self._net is None or self._step != step:
            if step % self.restart:
                raise InputError(
                    f"step {step}: the network of this step is trained by the {step % self.restart} steps before it, "
                    "which were not made here; begin at step 0 or go on from a checkpoint"
                )
            self._net, self._step, self._optimiser = self.network(step // self.restart), step, None
        return self._net

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """Train the network, unless the next step begins with a fresh one."""
        net = self.at(step)
        self._step = step + 1
        if self._step % self.restart == 0:
            self._net = None
            return
        if self._optimiser is None:
            self._optimiser = self.trainer.optimiser(net, self.plan)
        if self.on == "real":
            x, y = self.trainer.some(self.num_images, stream(self.seed, "pool-images", step))
            w = None
        else:
            assert decode is not None, "the loop decodes the set for pools that train on it"
            syn = decode()
            x, y, w = syn.x, syn.y, syn.w
        self.trainer.train(
            net, x, y, self.plan, w=w, optimiser=self._optimiser, seed=key(self.seed, "pool-training", step)
        )

    def to(self, device: torch.device | str) -> TrainedPool:
        """Hand out networks on this device from now on, the one under way included; returns itself."""
        super().to(device)
        if self._net is not None:
            self._net.to(self.device)
        for state in (self._optimiser.state if self._optimiser is not None else {}).values():
            state.update({name: value.to(self.device) for name, value in state.items() if torch.is_tensor(value)})
        return self

    def state_bytes(self) -> int:
        """Bytes of a network and its momentum."""
        weights: dict[str, Tensor] = self.network(0).state_dict()
        return 2 * sum(value.numel() * value.element_size() for value in weights.values())

    def identity(self) -> dict[str, Any]:
        """What tells one pool from another."""
        plan = self.plan
        return {
            **super().identity(),
            "on": self.on,
            "restart": self.restart,
            "num_images": self.num_images,
            "epochs": plan.epochs,
            "lr": plan.lr,
            "momentum": plan.momentum,
            "weight_decay": plan.weight_decay,
            "batch_size": plan.batch_size,
        }

    def state_dict(self) -> dict[str, Any]:
        """The identity, the step, and weights and momentum of a network under way."""
        state = {**super().state_dict(), "step": self._step}
        if self._net is not None and self._step % self.restart:
            state |= {f"weights/{name}": value for name, value in self._net.state_dict().items()}
            state |= self._momenta()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state, the network under way included."""
        super().load_state_dict(state)
        self._net, self._step, self._optimiser = None, state["step"], None
        weights = {name.removeprefix("weights/"): value for name, value in state.items() if name.startswith("weights/")}
        if weights:
            self._net = self.network(self._step // self.restart)
            self._net.load_state_dict(weights)
            self._optimiser = self.trainer.optimiser(self._net, self.plan)
            for number, parameter in enumerate(self._optimiser.param_groups[0]["params"]):
                if (buffer := state.get(f"momentum/{number}")) is not None:
                    self._optimiser.state[parameter]["momentum_buffer"] = buffer.to(self.device, copy=True)

    def _momenta(self) -> dict[str, Tensor]:
        """Momentum of every weight that has one: a weight no gradient ever reached has none."""
        if self._optimiser is None or not self.plan.momentum:
            return {}
        found = enumerate(self._optimiser.state.get(each) for each in self._optimiser.param_groups[0]["params"])
        return {f"momentum/{number}": state["momentum_buffer"] for number, state in found if state}
