"""What every discrepancy is: a summary of the real side, and a scalar distance of points to that summary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from latentdc.errors import InputError

_COLUMNS = 2048
"""Coordinates that are summed at a time on a CPU: 4 MB of float64 for 256 points."""


@dataclass(frozen=True)
class Summary:
    """The real side as a discrepancy needs it, with a leading class axis of all k classes.

    Additive summaries (of sketchable parts) hold float64 sums; the others hold the points themselves, class by class,
    padded with zero-weight rows to the largest class.
    """

    values: Tensor
    """Sums ``(k, d)``, or ``(k, o, d)`` of gradients, float64, if additive; else points ``(k, n, d)``."""
    counts: Tensor
    """Total weight of each class ``(k,)``, float64; 0 where a class was not summarised."""
    weights: Tensor | None = None
    """Weight of each point ``(k, n)``, each class summing to one; None if additive."""
    scale: Tensor | None = None
    """Squared kernel length of each class ``(k,)``, float64; None if the discrepancy has none."""
    within: Tensor | None = None
    """The real-real term of each class ``(k,)``, a constant of the optimisation; None if additive."""

    lines: Tensor | None = None
    """Sorted projections and their weights ``(2, k, num, n)``, float64; None but for ``sliced``."""

    @property
    def additive(self) -> bool:
        """Whether summaries of disjoint sets can be added and subtracted."""
        return self.weights is None

    @property
    def mean(self) -> Tensor:
        """Per-class means ``(k, …)`` of an additive summary; zero where a class was not summarised."""
        return _per_count(self.values, self.counts)

    def __add__(self, other: Summary) -> Summary:
        """Summary of the union of two disjoint sets."""
        self._must_fit(other)
        return replace(self, values=self.values + other.values, counts=self.counts + other.counts)

    def __sub__(self, other: Summary) -> Summary:
        """Summary of this set without the other, which must be part of it."""
        self._must_fit(other)
        return replace(self, values=self.values - other.values, counts=self.counts - other.counts)

    def to(self, device: torch.device | str) -> Summary:
        """The same summary on another device."""
        weights, scale, within, lines = (
            None if part is None else part.to(device) for part in (self.weights, self.scale, self.within, self.lines)
        )
        return Summary(self.values.to(device), self.counts.to(device), weights, scale, within, lines)

    def _must_fit(self, other: Summary) -> None:
        if not (self.additive and other.additive):
            raise InputError(
                "only additive summaries (of sums: mean, rff, …) can be added or subtracted; these hold points"
            )
        if self.values.shape != other.values.shape:
            mine, theirs = tuple(self.values.shape), tuple(other.values.shape)
            raise InputError(f"summaries of shape {mine} and {theirs} do not add; summarise both alike")
        if (self.scale is None) != (other.scale is None) or (
            self.scale is not None and other.scale is not None and not torch.equal(self.scale, other.scale)
        ):
            raise InputError("the summaries were taken with different kernel lengths; summarise one with the other's")


class Discrepancy(ABC):
    """Distance of a set of points to a summary of the real set, summed over classes.

    A part: a frozen dataclass whose fields a recipe may set. It stays ignorant of networks and images. Gradients reach
    the points, never the summary.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"points"})
    """Kinds of representation it can measure."""
    sketchable: ClassVar[bool] = False
    """Whether its summary is additive, so that a sketch can hold it."""
    calibrated: ClassVar[bool] = False
    """Whether additive summaries need kernel lengths fixed beforehand, the same for all parts of a set."""
    cite: ClassVar[tuple[str, ...]] = ()

    @property
    def adds_up(self) -> bool:
        """Whether summaries of the parts of a set, taken as they come, add up to that of the whole."""
        return self.sketchable and not self.calibrated

    def lengths(self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Tensor | None:
        """Squared kernel length of each class ``(k,)`` that these real points suggest; None if the part has none."""
        del points, owner, num_classes, w
        return None

    @abstractmethod
    def summarise(
        self, points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None, *, scale: Tensor | None = None
    ) -> Summary:
        """Summary of real points.

        Args:
            points: ``(n, d)``, or parameters ``(n, o, d)`` where the part accepts them; detached.
            owner: class of each point ``(n,)``, int64.
            num_classes: k.
            w: weight of each point ``(n,)`` or None for ones.
            scale: squared kernel lengths ``(k,)``; None to take them from these points.
        """

    @abstractmethod
    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Scalar distance of synthetic points ``(m, d)``, or parameters ``(m, o, d)``, to the summary.

        It is a sum over the classes among ``owner``.
        """


def class_sums(points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Per-class weighted sums ``(k, …)`` of points ``(n, …)`` and total weights ``(k,)``, in the points' dtype.

    A matrix product rather than a scatter: the same numbers on every run, also on a GPU.
    """
    member = torch.nn.functional.one_hot(owner, num_classes).to(points.dtype)  # (n, k)
    if w is not None:
        member = member * w.to(points.dtype)[:, None]
    return (member.T @ points.flatten(1)).view(num_classes, *points.shape[1:]), member.sum(0)


def exact_sums(points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``class_sums`` in float64 whatever the points' dtype, without their gradient.

    Of real images many classes are seldom among the points, and maps are wide: only those that are take part, and on a
    CPU a few coordinates at a time, so that the float64 copy of the points stays in the processor's cache.
    """
    with torch.no_grad():
        classes, place = torch.unique(owner, return_inverse=True)
        member = torch.nn.functional.one_hot(place, len(classes)).double()  # (n, c)
        if w is not None:
            member = member * w.double()[:, None]
        flat = points.detach().flatten(1)
        sums, counts = flat.new_zeros((num_classes, flat.shape[1]), dtype=torch.float64), member.new_zeros(num_classes)
        counts[classes] = member.sum(0)
        for part, into in zip(_blocks(flat), _blocks(sums), strict=True):
            into[classes] = member.T @ part.double()
    return sums.view(num_classes, *points.shape[1:]), counts


def _blocks(flat: Tensor) -> tuple[Tensor, ...]:
    """Views of a few columns each; on an accelerator of all."""
    return torch.split(flat, _COLUMNS, dim=1) if flat.device.type == "cpu" else (flat,)


def class_means(points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Per-class weighted means ``(k, …)``, zero for absent classes, and which classes are present ``(k,)``, bool."""
    sums, counts = class_sums(points, owner, num_classes, w)
    return _per_count(sums, counts), counts > 0


def _per_count(sums: Tensor, counts: Tensor) -> Tensor:
    # An absent class is divided by one: by a tiny number, its gradient would be infinity times zero.
    divisor = torch.where(counts > 0, counts, torch.ones_like(counts))
    return sums / divisor.view(-1, *[1] * (sums.ndim - 1))


def must_cover(real: Summary, present: Tensor) -> None:
    """Refuse to compare a class with nothing.

    Raises:
        InputError: a class among the synthetic points (``present`` ``(k,)``, bool) has no real point in the summary.
    """
    missing = present & (real.counts <= 0).to(present.device)
    if bool(missing.any()):
        classes = missing.nonzero().flatten().tolist()
        raise InputError(
            f"classes {classes} have synthetic rows but no real ones in the summary; "
            "give them real images or drop their rows"
        )


def must_be_sums(real: Summary, width: int, part: str) -> None:
    """Refuse a summary that is not of ``width`` sums a class.

    Raises:
        InputError: the summary of another discrepancy, or of the same with other options, as far as its size tells.
    """
    if not real.additive or real.values.shape[1:] != (width,):
        raise InputError(
            f"{part} was given the summary of another discrepancy, or of other options; summarise with its own"
        )


def group(points: Tensor, owner: Tensor, classes: Tensor, w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Points class by class: ``(c, n, d)`` padded with zeros, and weights ``(c, n)`` summing to one in each class.

    Args:
        points: ``(m, d)``; gradients flow through.
        owner: ``(m,)``, int64.
        classes: sorted ids of the c classes wanted ``(c,)``; each row's owner must be among them.
        w: ``(m,)`` or None.
    """
    slot = torch.searchsorted(classes, owner)
    order = torch.argsort(slot, stable=True)
    counts = torch.bincount(slot, minlength=len(classes))
    width = int(counts.max()) if len(classes) else 0
    place = torch.arange(len(order), device=owner.device) - (counts.cumsum(0) - counts)[slot[order]]
    grouped = points.new_zeros(len(classes), width, points.shape[1]).index_put((slot[order], place), points[order])
    mass = torch.ones_like(owner, dtype=points.dtype) if w is None else w.to(points.dtype)
    weights = points.new_zeros(len(classes), width).index_put((slot[order], place), mass[order])
    return grouped, weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(points.dtype).tiny)


def hold(points: Tensor, owner: Tensor, num_classes: int, w: Tensor | None = None) -> Summary:
    """Summary of the real points themselves: for discrepancies that no sum can serve."""
    with torch.no_grad():
        classes = torch.arange(num_classes, device=owner.device)
        values, weights = group(points.detach(), owner, classes, w)
        _, counts = class_sums(points.new_empty(len(points), 0, dtype=torch.float64), owner, num_classes, w)
        return Summary(values, counts, weights)


class Facing(NamedTuple):
    """The two sides of the classes present, each padded with zero-weight rows."""

    classes: Tensor
    """Ids of the c classes present, sorted ``(c,)``."""
    syn: Tensor
    """Synthetic points ``(c, m, d)``; gradients flow through."""
    syn_weights: Tensor
    """``(c, m)``, each class summing to one."""
    real: Tensor
    """Real points ``(c, n, d)``, in the dtype of the synthetic ones."""
    real_weights: Tensor
    """``(c, n)``, each class summing to one."""


def face(real: Summary, points: Tensor, owner: Tensor, w: Tensor | None, part: Discrepancy) -> Facing:
    """Synthetic points of a call and held real points, class by class.

    Raises:
        InputError: a class without real points, or a summary that holds none.
    """
    if real.weights is None:
        raise InputError(f"{type(part).__name__} was given the sums of another discrepancy; summarise with its own")
    classes = torch.unique(owner)
    present = torch.zeros_like(real.counts, dtype=torch.bool)
    present[classes] = True
    must_cover(real, present)
    x, a = group(points, owner, classes, w)
    return Facing(classes, x, a, real.values[classes].to(x.dtype), real.weights[classes].to(x.dtype))
