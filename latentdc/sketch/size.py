"""Bytes of a sketch, before it is taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from latentdc.discrepancies import Discrepancy
from latentdc.networks import FixedPool
from latentdc.representations import Representation
from latentdc.sketch.embed import has_lengths, look_of
from latentdc.sketch.manifest import landmarks_of
from latentdc.types import Batch


def sketch_bytes(
    pool: FixedPool,
    see: Representation,
    by: Discrepancy,
    counts: Sequence[int],
    *,
    num_pairs: int,
    images_per_pair: int | None = None,
    landmarks: int | None = None,
    plus: Sequence[tuple[Representation, Discrepancy]] = (),
) -> int:
    """Bytes of the numbers that ``sketch`` would write, from what one blank image shows.

    ``pairs · k · (8 + Σ_layers b)``: b is 8 for each sum, one for each weight of a layer of gradients; of landmarks
    ``4 d + 8`` each; and 8 for a kernel length.

    Args:
        pool: the networks.
        see: what of them is looked at.
        by: the discrepancy the sketch will serve.
        counts: images of each class.
        num_pairs: see ``sketch``.
        images_per_pair: see ``sketch``.
        landmarks: see ``sketch``.
        plus: see ``sketch``.

    Raises:
        InputError: representation or discrepancy cannot be sketched so.
    """
    looks = ((see, by), *plus)
    most = max(min(count, images_per_pair or count) for count in counts)
    a_class = sum(
        _of_class(pool, *look, num, most) for look, num in zip(looks, landmarks_of(looks, landmarks), strict=True)
    )
    return num_pairs * len(counts) * a_class


def _of_class(pool: FixedPool, see: Representation, by: Discrepancy, landmarks: int | None, most: int) -> int:
    """Bytes of a term's numbers for a pair and a class of at most ``most`` images."""
    owner = torch.zeros(1, dtype=torch.int64, device=pool.device)
    blank = torch.zeros(1, *pool.spec.image_shape, device=pool.device)
    batch = Batch(blank, functional.one_hot(owner, pool.spec.num_classes).float(), owner)
    shown = look_of(see)(pool.network(0), batch, differentiable=False)
    held = 8
    for points in shown:
        if landmarks is not None:
            held += min(landmarks, most) * (4 * points.shape[1] + 8)
        elif see.kind == "points":
            held += 8 * by.summarise(points, owner, 1).values.numel()
        else:
            held += 8 * points.numel()
        held += 8 * has_lengths(see, by, landmarks)
    return held
