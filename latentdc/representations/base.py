"""What every representation is: the part of a network's reaction to images that is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.networks.looked import Looked
from latentdc.types import EVERYTHING, FEATURES, Batch, Net, Part


@runtime_checkable
class Representation(Protocol):
    """``see``: what is looked at. A part: a frozen dataclass whose fields a recipe may set.

    One whose rows mix the classes of a batch says so by an attribute ``scope = "all"``; see ``scope_of``. One that
    looks at class scores says so by ``needs_classifier = True``: not every network has some. What it looks at
    of an observation besides embedding and class scores it says by ``needs``, a set of ``"features"`` and ``"maps"``; a
    compiled network is spared the rest. Without, it is features, and a subclass has its parent's.
    """

    kind: ClassVar[str]
    """``"points"`` (a row per image) or ``"parameters"`` (a row per class); a discrepancy says which it accepts."""

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """One tensor per thing looked at; holds no graph unless ``differentiable``.

        Points are ``(n, d)``, a row per image; parameters ``(c, o, d)``, a row per class of the batch, in ascending
        order, or a single one where the classes are mixed.
        """
        ...


@runtime_checkable
class Additive(Representation, Protocol):
    """A representation of parameters that follows from means over the images of each class, and from these alone.

    Of parts of a data set such means add up, weighted by the number of their images, so that a sketch can hold them.
    """

    @property
    def summed(self) -> Representation:
        """What the means are taken of: it shows them of each class ``(c, o, d)`` and never mixes the classes."""
        ...

    def of_means(self, means: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What this shows of c classes, from what ``summed`` shows of them; in the dtype given."""
        ...


def scope_of(see: Representation) -> str:
    """``"class"`` where classes do not see each other and may be shared out, ``"all"`` where they are mixed."""
    return str(getattr(see, "scope", "class"))


def needs_of(see: Representation) -> frozenset[Part]:
    """What it looks at besides embedding and class scores: the features of every depth, unless it says.

    Raises:
        InputError: it says what no observation shows.
    """
    needs: frozenset[Part] = getattr(see, "needs", FEATURES)
    if not needs <= EVERYTHING:
        raise InputError(f"{type(see).__name__}.needs = {sorted(needs)}: choose among {sorted(EVERYTHING)}")
    return needs


def seen_together(sees: Sequence[Representation], net: Net, batch: Batch) -> list[tuple[Tensor, ...]]:
    """What each shows of the same images, without gradients: one pass of the network for all that observe it."""
    looked = net if len(sees) == 1 else Looked(net)
    return [see(looked, batch, differentiable=False) for see in sees]


def rows_of(see: Representation, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Class and weight of each row that ``see`` shows of a batch.

    Of points these are the images' own; of parameters, which are means over a class, the classes ``(c,)`` and the
    total weight of their images ``(c,)``, so that sums over rows are sums over images. The one row of mixed classes
    stands in the place of class 0.
    """
    if see.kind == "points":
        return batch.owner, batch.w
    owner = torch.zeros_like(batch.owner) if scope_of(see) == "all" else batch.owner
    classes, slot, counts = torch.unique(owner, return_inverse=True, return_counts=True)
    if batch.w is None:
        return classes, counts.to(batch.x.dtype)
    member = torch.nn.functional.one_hot(slot, len(classes)).to(batch.w.dtype)  # (n, c)
    return classes, member.T @ batch.w


def in_full(points: Tensor) -> Tensor:
    """At least float32, whatever precision the network ran in: distances are small differences of large numbers."""
    return points.float() if points.dtype in (torch.bfloat16, torch.float16) else points


def shares_of(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """For each class of a batch in ascending order the places of its images and their weights, summing to one."""
    w = torch.ones_like(batch.owner, dtype=batch.x.dtype) if batch.w is None else batch.w.to(batch.x.dtype)
    places = [(batch.owner == cls).nonzero().flatten() for cls in torch.unique(batch.owner).tolist()]
    return [(rows, w[rows] / w[rows].sum()) for rows in places]
