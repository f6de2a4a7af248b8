"""What a run asks of a sketch again and again, made once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from latentdc.discrepancies import Discrepancy, Summary
from latentdc.representations import Additive, Representation
from latentdc.sketch.held import Held

_ROOM = 2
"""Summaries that are kept take at most this many times the bytes of the sketch itself."""


class Kept:
    """Summaries of a sketch's pairs; those that take more than looking up its sums are kept while there is room.

    Sorted projections of landmarks, their kernel and transport among themselves, gradients of means: none of them
    changes from one visit of a pair to the next.

    Args:
        held: the numbers of the sketch.
    """

    def __init__(self, held: Held) -> None:
        self.held, self.room = held, _ROOM * held.num_bytes
        self._known: dict[tuple[int, int, tuple[int, ...]], tuple[Summary, ...]] = {}

    def summaries(
        self, term: int, pair: int, see: Representation, by: Discrepancy, classes: Sequence[int]
    ) -> tuple[Summary, ...]:
        """``Held.summaries`` of a term of the objective, which ``see`` and ``by`` are."""
        held, key = self.held.terms[term], (term, pair, tuple(classes))
        if key in self._known:
            return self._known[key]
        found = held.summaries(pair, see, by, classes)
        made = bool(held.masses) or isinstance(see, Additive)
        size = sum(map(_bytes, found)) if made else 0
        if made and size <= self.room:
            self._known[key] = found
            self.room -= size
        return found


def _bytes(summary: Summary) -> int:
    tensors = [each for each in vars(summary).values() if isinstance(each, Tensor)]
    return sum(each.numel() * each.element_size() for each in tensors)
