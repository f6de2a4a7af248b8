"""What every representation is: the part of a network's reaction to images that is compared."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from latentdc.types import Batch, Net


@runtime_checkable
class Representation(Protocol):
    """``see``: what is looked at. A part: a frozen dataclass whose fields a recipe may set."""

    kind: ClassVar[str]
    """``"points"`` (a row per image) or ``"parameters"`` (a row per class); a discrepancy says which it accepts."""

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """One tensor ``(n, d)`` per thing looked at; holds no graph unless ``differentiable``."""
        ...
