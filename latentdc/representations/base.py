"""What every representation is: the part of a network's reaction to images that is compared."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from latentdc.types import Batch, Net


@runtime_checkable
class Representation(Protocol):
    """``see``: what is looked at. A part: a frozen dataclass whose fields a recipe may set."""

    kind: ClassVar[str]
    """``"points"`` (a row per image) or ``"parameters"`` (a row per class); a discrepancy says which it accepts."""

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """One tensor per thing looked at; holds no graph unless ``differentiable``.

        Points are ``(n, d)``, a row per image; parameters ``(c, o, d)``, a row per class of the batch, in ascending
        order.
        """
        ...


def rows_of(see: Representation, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Class and weight of each row that ``see`` shows of a batch.

    Of points these are the images' own; of parameters, which are means over a class, the classes ``(c,)`` and the
    total weight of their images ``(c,)``, so that sums over rows are sums over images.
    """
    if see.kind == "points":
        return batch.owner, batch.w
    classes, slot, counts = torch.unique(batch.owner, return_inverse=True, return_counts=True)
    if batch.w is None:
        return classes, counts.to(batch.x.dtype)
    member = torch.nn.functional.one_hot(slot, len(classes)).to(batch.w.dtype)  # (n, c)
    return classes, member.T @ batch.w
