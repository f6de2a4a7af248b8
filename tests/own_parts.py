"""Parts that are not latentdc's own, as somebody would write them: named in recipes as ``own_parts:Class``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from latentdc.data.augment import NoAugment
from latentdc.discrepancies import Mean
from latentdc.initialise import Request
from latentdc.objectives import Match
from latentdc.portable.pixels import PixelsDecoder
from latentdc.types import Batch, Latents, Net

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Logits:
    """A representation."""

    kind: ClassVar[str] = "points"
    cite: ClassVar[tuple[str, ...]] = ("@misc{own2026logits,\n  title = {Logits}\n}",)

    scale: float = 1.0

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return (self.scale * net.observe(batch.x).logits,)


@dataclass(frozen=True)
class Louder(Mean):
    """A discrepancy."""

    cite: ClassVar[tuple[str, ...]] = ("gretton2012mmd",)
    factor: float = 2.0

    def __call__(self, *given: Any) -> Tensor:
        return self.factor * super().__call__(*given)


@dataclass(frozen=True)
class Still(NoAugment):
    """An augmentation."""

    times: int = 1


class Twice(ModelMixin, ConfigMixin):
    """A formation."""

    config_name = "config.json"
    expands = 2

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 0)

    def pack(self, x: Tensor) -> Tensor:
        return x[::2]


@dataclass(frozen=True)
class Grey:
    """A start."""

    level: float = 0.5

    def __call__(self, request: Request) -> Latents:
        shape = request.decoder.latent_shapes["x"]
        return {"x": torch.full((sum(request.counts), *shape), self.level)}


class Plain(PixelsDecoder):
    """A decoder whose statistics the data fill in."""


class Own(Match):
    """An objective."""


class Untold:
    """A representation that keeps its options to itself."""

    kind = "points"

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        return ()


class Unread:
    """Its options have a type that only a checker knows; it is no part of any kind."""

    def __init__(self, price: Decimal | None = None) -> None:
        self.price = price


def function() -> None:
    """No class."""
