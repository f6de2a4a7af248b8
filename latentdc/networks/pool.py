"""Pools: which network ψ a step sees. A draw depends on (seed, step) only, so every rank makes the same one.

Pools whose networks train are in ``trained``: theirs depend on the steps before as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from latentdc.atomic import digest_tensors
from latentdc.errors import BundleError, InputError
from latentdc.networks.base import Network, build
from latentdc.seeding import stream
from latentdc.types import Batch, DataSpec

_PURPOSE = "pool-network"
_KEPT_PARAMETERS = 40_000_000
"""A fixed pool keeps built networks up to this many parameters in all (160 MB); beyond it, it builds them again."""


def fingerprint(network: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of all parameters and buffers: two networks of equal value agree."""
    return digest_tensors(network.state_dict())


class Pool:
    """Supplies a frozen network for every step: eval mode, no parameter gradients, unchanged by use.

    Args:
        arch: architecture name or ``"package.module:Class"``.
        spec: the data the networks see.
        seed: the run's seed.
        width: see ``latentdc.networks.base.build``.
    """

    cite: ClassVar[tuple[str, ...]] = ()
    needs_trainer: ClassVar[bool] = False
    """Whether its networks train, so that it is made with a ``trainer``."""

    has_classifier: ClassVar[bool] = True
    """Whether its networks have class scores of the data."""

    allows_batch_norm: bool = False
    """Whether its networks were trained before they are handed out, so that their batch statistics mean something."""

    def __init__(self, arch: str, spec: DataSpec, seed: int, width: int | None = None) -> None:
        self.arch, self.spec, self.seed, self.width = arch, spec, seed, width
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Pool:
        """Hand out networks on this device from now on (they are still initialised on the CPU); returns itself."""
        self.device = torch.device(device)
        return self

    def network(self, index: int) -> Network:
        """The pool's network number ``index``, freshly built.

        Raises:
            InputError: an unknown architecture, or one with batch normalisation.
        """
        net = build(self.arch, self.spec, seed=self.seed, index=index, width=self.width, purpose=_PURPOSE)
        if not self.allows_batch_norm:
            _refuse_batch_norm(net, self.arch)
        return net.to(self.device).eval().requires_grad_(False)

    def at(self, step: int) -> Network:
        """The network of one step."""
        raise NotImplementedError(f"{type(self).__name__} must implement at(step) -> Network")

    def advance(self, step: int, decode: Callable[[], Batch] | None = None) -> None:
        """After a step: a pool that trains its networks does so here.

        Args:
            step: the step just made.
            decode: gives all images of the set as they are now.
        """

    def rehearse(self) -> int:
        """Do one of the trainings that a run does once, before it needs them, and act as if all were done.

        For whoever wants to know what a run will take.

        Returns:
            How many of them a run does; 0 if none.
        """
        return 0

    def state_bytes(self) -> int:
        """Bytes of tensors that a checkpoint holds of the pool, at most."""
        return sum(
            value.numel() * value.element_size() for value in self.state_dict().values() if torch.is_tensor(value)
        )

    def identity(self) -> dict[str, Any]:
        """What tells one pool from another; JSON values."""
        return {"kind": type(self).__name__, "arch": self.arch, "seed": self.seed, "width": self.width}

    def state_dict(self) -> dict[str, Any]:
        """The identity, and whatever a draw depends on besides the step: JSON values and tensors."""
        return self.identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            BundleError: it is another pool's; the message names what differs.
        """
        mine = self.identity()
        wrong = [name for name in sorted(mine) if mine[name] != state.get(name)]
        if wrong:
            pairs = ", ".join(f"{name} = {state.get(name)!r} instead of {mine[name]!r}" for name in wrong)
            raise BundleError(f"the saved pool is another one: {pairs}; resume with the recipe that made it")


def _refuse_batch_norm(net: Network, arch: str) -> None:
    """Running statistics of an untrained network are no statistics of anything."""
    found = [name for name, module in net.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if found:
        raise InputError(
            f'architecture "{arch}" has {len(found)} batch normalisations ("{found[0]}", …): an untrained network '
            "normalises with mean 0 and variance 1, whatever it sees, and what it shows of images means nothing. "
            'Choose "convnet" (instance normalisation), "mlp" or a network of your own without batch normalisation '
            f'(in a recipe: source.arch); as a student, "{arch}" is fine.'
        )


class FreshPool(Pool):
    """A new random network at every step: ψ_t ~ initialisation, as distribution matching samples them."""

    def at(self, step: int) -> Network:
        """The network of one step; not kept."""
        return self.network(step)


class FixedPool(Pool):
    """A fixed list of seeded networks, walked in a new seeded permutation each round; what a sketch is made under.

    Args:
        arch: architecture name or ``"package.module:Class"``.
        spec: the data the networks see.
        seed: the run's seed.
        num: number of networks.
        width: see ``latentdc.networks.base.build``.

    Raises:
        InputError: ``num`` is below 1.
    """

    def __init__(self, arch: str, spec: DataSpec, seed: int, num: int = 20, width: int | None = None) -> None:
        super().__init__(arch, spec, seed, width)
        if num < 1:
            raise InputError(f"num = {num}: a fixed pool needs at least one network; raise the number of pairs")
        self.num = num
        self._round = -1
        self._order: list[int] = []
        self._kept: dict[int, Network] = {}
        self._kept_parameters = 0

    def __len__(self) -> int:
        return self.num

    def to(self, device: torch.device | str) -> FixedPool:
        """Hand out networks on this device from now on; returns itself."""
        super().to(device)
        for net in self._kept.values():
            net.to(self.device)
        return self

    def index(self, step: int) -> int:
        """Which network step ``step`` sees: entry ``step % num`` of the permutation of round ``step // num``."""
        round_, position = divmod(step, self.num)
        if round_ != self._round:
            self._order = torch.randperm(self.num, generator=stream(self.seed, "pool-walk", round_)).tolist()
            self._round = round_
        return self._order[position]

    def network(self, index: int) -> Network:
        """Network number ``index``, kept for the next time while memory allows.

        Raises:
            InputError: the pool has no such network.
        """
        if not 0 <= index < self.num:
            raise InputError(f"network {index} of a pool of {self.num}: choose 0 … {self.num - 1}")
        if index in self._kept:
            return self._kept[index]
        net = super().network(index)
        size = sum(p.numel() for p in net.parameters())
        if self._kept_parameters + size <= _KEPT_PARAMETERS:
            self._kept[index] = net
            self._kept_parameters += size
        return net

    def at(self, step: int) -> Network:
        """The network of one step."""
        return self.network(self.index(step))

    def identity(self) -> dict[str, Any]:
        """What tells one pool from another."""
        return {**super().identity(), "num": self.num}

    def described(self) -> dict[str, Any]:
        """What a sketch needs to have the pool again; JSON values."""
        return {"arch": self.arch, "seed": self.seed, "num": self.num, "width": self.width}

    @property
    def if_another(self) -> str:
        """Why a network could be another one than it was, and what to do."""
        return f"torch {torch.__version__} initialises differently? Make the sketch again on this machine"
