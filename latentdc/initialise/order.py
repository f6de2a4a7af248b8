"""Order of rows: every prefix of a class should be as good a set as its size allows."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdc.discrepancies import Discrepancy, Mean, Summary
from latentdc.latents import decode
from latentdc.portable.bank import LatentBank
from latentdc.representations import Features, Representation
from latentdc.source import Look, Source
from latentdc.types import Batch, Decoder, Formation


def herd(points: Tensor, target: Tensor) -> Tensor:
    """Greedy order ``(n,)`` of points ``(n, d)`` whose every prefix has a mean near ``target`` ``(d,)``.

    ``i_m = argmin_i ‖ (1/m) ( Σ_{j<m} x_{i_j} + x_i ) − target ‖²`` over the points not yet taken; a tie goes to the
    lowest index.

    *Reference:* Welling 2009, ICML (herding).
    """
    gaps = points.double() - target.double()
    total = torch.zeros_like(gaps[0])
    free = torch.ones(len(gaps), dtype=torch.bool, device=gaps.device)
    order = []
    for _ in range(len(gaps)):
        distance = (total + gaps).square().sum(1).masked_fill(~free, torch.inf)
        best = int(distance.argmin())
        order.append(best)
        free[best] = False
        total = total + gaps[best]
    return torch.tensor(order, dtype=torch.int64)


@torch.no_grad()
def order_rows(
    decoder: Decoder,
    bank: LatentBank,
    source: Source,
    see: Representation,
    by: Discrepancy,
    *,
    formation: Formation | None = None,
    num_views: int = 4,
    chunk: int | None = None,
) -> LatentBank:
    """A new bank with the rows of each class herded towards the real mean.

    The mean is that of what the discrepancy sums: features for ``mean``, waves for ``rff``, points otherwise. Views of
    the source are put side by side, each scaled to unit mean square distance from the real mean: all count alike.

    Args:
        decoder: latents → images.
        bank: the finished set.
        source: the real side, which need not hold images.
        see: what of a network is looked at; in place of gradients, features are.
        by: what a sketch was taken for.
        formation: images → more images; a row is the mean over its images.
        num_views: how many views of the source to look under.
        chunk: rows decoded at once; None for as many as the decoder bears.
    """
    if max(bank.counts) < 2:
        return bank
    if see.kind != "points":  # Gradients are of a class; a single row has features.
        see, by = Features(), Mean()
    batch = decode(decoder, bank, chunk=chunk, formation=formation)
    gaps = torch.cat([_gaps(batch, bank, source, step, see, by) for step in range(num_views)], 1)  # (s, D)
    owner = bank.owner.to(gaps.device)
    order = torch.arange(bank.num_rows)
    for cls in range(bank.num_classes):
        rows = (owner == cls).nonzero().flatten()
        order[rows.cpu()] = rows.cpu()[herd(gaps[rows], gaps.new_zeros(gaps.shape[1]))]
    order = order.to(bank.owner.device)
    y = None if bank.soft is None else bank.y[order]
    w = None if bank.w is None else bank.w[order]
    ordered: LatentBank = LatentBank.of(bank.latents(order), bank.counts, y=y, w=w)
    ordered.to(bank.owner.device)
    return ordered


def _gaps(batch: Batch, bank: LatentBank, source: Source, step: int, see: Representation, by: Discrepancy) -> Tensor:
    """What each row shows less the real mean of its class ``(s, d)``, under one view."""
    view = source.view(step)
    (real,) = view.real([Look(see, by)], list(range(bank.num_classes)))
    row = torch.arange(bank.num_rows, device=bank.owner.device).repeat_interleave(len(batch.x) // bank.num_rows)
    found = []
    for summary, points in zip(real, see(view.net, view.augment(batch), differentiable=False), strict=True):
        shown, target = _comparable(summary, points, row, bank, by)
        gap = shown - target
        found.append(gap / gap.square().sum(1).mean().sqrt().clamp(min=torch.finfo(gap.dtype).tiny))
    return torch.cat(found, 1)


def _comparable(
    summary: Summary, points: Tensor, row: Tensor, bank: LatentBank, by: Discrepancy
) -> tuple[Tensor, Tensor]:
    """Rows ``(s, d)`` and the real means of their classes ``(s, d)``, in the space the discrepancy sums in."""
    owner = bank.owner
    if summary.additive:
        scale = None if summary.scale is None else summary.scale[owner]
        return by.summarise(points, row, bank.num_rows, scale=scale).mean, summary.mean[owner]
    assert summary.weights is not None
    means = (summary.weights[:, :, None] * summary.values).sum(1).double()
    shown = means.new_zeros(bank.num_rows, points.shape[1]).index_add_(0, row, points.double())
    return shown * bank.num_rows / len(row), means[owner]
