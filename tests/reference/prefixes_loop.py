"""Matching of prefixes as its equation reads: a loop over classes and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


def prefixes_loop(
    distance: Callable[[int, Tensor], Tensor], owner: Tensor, row: Tensor, sizes: Sequence[int] | None
) -> Tensor:
    """Sum over classes of the mean over sizes of a distance.

    ``distance`` is given a class and the places in the batch of the images of its first rows.
    """
    total = None
    for cls in sorted(set(owner.tolist())):
        places = [place for place, mine in enumerate(owner.tolist()) if mine == cls]
        order = sorted({int(row[place]) for place in places})
        wanted = [*range(1, len(order))] if sizes is None else [size for size in sizes if size < len(order)]
        wanted.append(len(order))
        for size in wanted:
            first = [place for place in places if int(row[place]) in order[:size]]
            term = distance(cls, owner.new_tensor(first)) / len(wanted)
            total = term if total is None else total + term
    assert total is not None
    return total
