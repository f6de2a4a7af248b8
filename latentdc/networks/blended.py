"""Networks between their initialisation and what training on real images makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.networks.base import Network
from latentdc.networks.pool import Pool
from latentdc.networks.train import TrainSpec
from latentdc.networks.trained import Trainer
from latentdc.seeding import key, stream
from latentdc.types import DataSpec


class BlendedPool(Pool):
    """Each step sees ``θ = (1 − β) θ_init + β θ_trained`` of one of ``num`` networks, β ~ U(0, 1).

    A network is trained on real images when it is first asked for, and kept; checkpoints hold the trained ones.
    ``trained_only`` fixes β to 1, and then networks with batch normalisation will do as well.

    Args:
        arch: architecture name or ``"package.module:Class"``.
        spec: the data the networks see.
        seed: the run's seed.
        trainer: how a network is trained, and on which real images.
        width: see ``latentdc.networks.base.build``.
        num: number of networks.
        epochs: passes over ``num_images`` real images each is trained for, at a rate of 0.01 that falls tenfold after
            two thirds and five sixths of them.
        num_images: real images that a network is trained on, at most, another random draw for each; None for all.
        trained_only: no blend.

    Raises:
        InputError: a value out of range.

    *Reference:* Zhang et al. 2024 (DANCE), IJCAI, arXiv 2406.01063, §3.2; Wang et al. 2025 (NCFM), CVPR, arXiv
    2502.20653, §4.1.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhang2024dance",)
    needs_trainer: ClassVar[bool] = True

    def __init__(
        self,
        arch: str,
        spec: DataSpec,
        seed: int,
        trainer: Trainer,
        width: int | None = None,
        *,
        num: int = 20,
        epochs: int = 60,
        num_images: int | None = None,
        trained_only: bool = False,
    ) -> None:
        super().__init__(arch, spec, seed, width)
        for name, value in {"num": num, "epochs": epochs, "num_images": num_images}.items():
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}: give at least 1")
        self.trainer, self.num, self.num_images, self.trained_only = trainer, num, num_images, trained_only
        self.allows_batch_norm = trained_only
        falls = sorted({max(1, epochs * 2 // 3), max(1, epochs * 5 // 6)})
        self.plan = TrainSpec(epochs, batch_size=256, milestones=tuple(falls))
        self._trained: dict[int, dict[str, Tensor]] = {}

    def at(self, step: int) -> Network:
        """The network of one step; trains it first where that was not done yet."""
        rng = stream(self.seed, "blend", step)
        index, share = int(torch.randint(self.num, (1,), generator=rng)), float(torch.rand(1, generator=rng))
        net, trained = self.network(index), self.trained(index)
        if self.trained_only:
            net.load_state_dict(trained)
            return net
        blend = {name: torch.lerp(value, trained[name].to(value), share) for name, value in net.state_dict().items()}
        net.load_state_dict(blend)
        return net

    def trained(self, index: int) -> dict[str, Tensor]:
        """Weights of network ``index`` after its training, on the CPU."""
        if index not in self._trained:
            net, images = self.network(index), self.trainer
            num = len(images.x) if self.num_images is None else min(self.num_images, len(images.x))
            x, y = images.some(num, stream(self.seed, "blend-images", 0, index))
            images.train(net, x, y, self.plan, seed=key(self.seed, "blend-training", 0, index))
            self._trained[index] = {name: value.cpu() for name, value in net.state_dict().items()}
        return self._trained[index]

    def rehearse(self) -> int:
        """Train the first network and take its weights for all of them."""
        first = self.trained(0)
        self._trained = dict.fromkeys(range(self.num), first)
        return self.num

    def identity(self) -> dict[str, Any]:
        """What tells one pool from another."""
        own = {"num": self.num, "epochs": self.plan.epochs, "num_images": self.num_images}
        return {**super().identity(), **own, "trained_only": self.trained_only}

    def state_dict(self) -> dict[str, Any]:
        """The identity, and the weights of the networks trained so far."""
        weights = {f"{index}/{name}": value for index, own in self._trained.items() for name, value in own.items()}
        return {**super().state_dict(), **weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        super().load_state_dict(state)
        self._trained = {}
        for name, value in state.items():
            if torch.is_tensor(value):
                index, _, parameter = name.partition("/")
                self._trained.setdefault(int(index), {})[parameter] = value
