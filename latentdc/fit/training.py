"""What is being fitted: its networks, averages and optimisers, one step at a time, with its full state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from latentdc.checkpoint import optimizer_tensors, restore_optimizer
from latentdc.data.store import ClassStore
from latentdc.errors import BundleError, RecipeError


class FitRecipe(Protocol):
    """Everything that decides a decoder besides data, seed and duration: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str:
        """What is made: a name of ``latentdc.decoders.DECODERS``."""
        ...

    @property
    def holdout(self) -> float:
        """Share of each class that is kept from training, on which the figures are measured."""
        ...

    @property
    def made_from(self) -> str:
        """The decoder that it starts from or goes through: a folder or a name, empty for none."""
        ...

    def training(self, store: ClassStore, *, seed: int, device: torch.device, bf16: bool) -> Training:
        """The training at its start.

        Raises:
            RecipeError: images that this recipe cannot make.
        """
        ...


class Training(ABC):
    """A decoder in the making.

    Args:
        store: the training images.
        nets: every network whose weights are part of the state, by name.
        optimisers: of those that are trained, by name.
        seed: of everything random.
        device: where the networks are.
        bf16: whether the networks compute in bfloat16.
    """

    reconstructs: ClassVar[bool] = False
    """Whether its figures are taken of decoded real images rather than of draws from the prior."""

    def __init__(
        self,
        store: ClassStore,
        nets: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        *,
        seed: int,
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.store, self.nets, self.optimisers = store, nets, optimisers
        self.seed, self.device, self.bf16 = seed, device, bf16

    def prepare(self) -> Iterator[str]:
        """What is done once before the first step, or after a checkpoint was taken up: a few words before each part."""
        yield from ()

    @abstractmethod
    def step(self, number: int, progress: float) -> tuple[float, ...]:
        """One update; a function of the state and the arguments alone.

        Args:
            number: the step, from 0; keys every random draw.
            progress: share of the run that is over, in [0, 1]; decides the learning rates.

        Returns:
            The losses that it saw, a named tuple.
        """

    @abstractmethod
    def decoder(self) -> ModelMixin:
        """The decoder as it stands, a copy in eval mode."""

    def origin(self) -> dict[str, Any]:
        """What else, besides data and recipe, the result follows from: JSON values by name."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors."""
        found: dict[str, Tensor] = {}
        for part, net in self.nets.items():
            found |= {f"{part}.{name}": value for name, value in net.state_dict().items()}
        for part, optimiser in self.optimisers.items():
            found |= {f"{part}-adam/{name}": value for name, value in optimizer_tensors(optimiser).items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put a state back.

        Raises:
            BundleError: the state is of another recipe or another kind of image.
        """
        for part, net in self.nets.items():
            mine = {k.removeprefix(part + "."): v for k, v in tensors.items() if k.startswith(part + ".")}
            try:
                net.load_state_dict(mine)
            except RuntimeError as error:
                raise BundleError(f"the checkpoint does not fit this recipe and data ({part}): {error}") from error
        for part, optimiser in self.optimisers.items():
            prefix = f"{part}-adam/"
            mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            restore_optimizer(optimiser, mine)


def falling(progress: float, constant: float) -> float:
    """Factor of a learning rate: 1 over the first share ``constant`` of a run, then linearly to 0."""
    return min(1.0, max(0.0, (1 - progress) / (1 - constant)))


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, number: int, decay: float) -> None:
    """Move an exponential average towards a network after step ``number``; shorter at first.

    A fixed decay would keep the random start in the average for thousands of steps.
    """
    decay = min(decay, (1 + number) / (10 + number))
    for kept, fresh in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(fresh, 1 - decay)


def check_levels(image_shape: tuple[int, int, int], channels: Sequence[int]) -> None:
    """Whether height and width can be halved between every two levels of resolution.

    Raises:
        RecipeError: they cannot; the message names levels and sizes that would do.
    """
    sides, levels = image_shape[1:], len(channels)
    factor = 2 ** (levels - 1)
    if any(side % factor for side in sides):
        fewer = max(n for n in range(1, levels) if not any(side % 2 ** (n - 1) for side in sides))
        below = max(factor, min(sides) // factor * factor)
        raise RecipeError(
            f"channels = {tuple(channels)}: {levels} levels need height and width divisible by {factor}, the images "
            f"are {sides[0]} x {sides[1]}. Give at most {fewer} levels (--channels), or load the images at another "
            f"size, for instance {below} or {below + factor} pixels (--size)"
        )
