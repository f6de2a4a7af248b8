"""Terms between the images of a set as their equations read: loops over pairs of images and pairs of classes."""

from __future__ import annotations

from torch import Tensor


def _by_class(points: Tensor, owner: Tensor) -> list[list[Tensor]]:
    points = points / points.norm(dim=1, keepdim=True)
    return [[row for row, c in zip(points, owner, strict=True) if c == cls] for cls in sorted(set(owner.tolist()))]


def intra_inter_loop(syn: Tensor, owner: Tensor, temperature: float, margin: float) -> Tensor:
    """Mean nearness of different images of a class, and what pairs of class means lack of the margin."""
    total, classes = syn.new_zeros(()), _by_class(syn, owner)
    for mine in classes:
        near = [
            (-((a - b) ** 2).sum() / temperature).exp() for i, a in enumerate(mine) for b in mine[:i] + mine[i + 1 :]
        ]
        total = total + (sum(near) / len(near) if near else 0)
    means = [sum(mine) / len(mine) for mine in classes]
    for i, a in enumerate(means):
        for b in means[i + 1 :]:
            total = total + (margin - (a - b).norm()).clamp(min=0)
    return total


def near_real_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor) -> Tensor:
    """Sum over classes of the mean of one less the smallest cosine of an image with a real one."""
    total = syn.new_zeros(())
    for mine, theirs in zip(_by_class(syn, syn_owner), _by_class(real, real_owner), strict=True):
        total = total + sum(1 - min((a * b).sum() for b in theirs) for a in mine) / len(mine)
    return total


def far_from_self_loop(syn: Tensor, owner: Tensor) -> Tensor:
    """Sum over classes of the mean of the largest cosine of an image with another one."""
    total = syn.new_zeros(())
    for mine in _by_class(syn, owner):
        if len(mine) > 1:
            most = [max((a * b).sum() for j, b in enumerate(mine) if j != i) for i, a in enumerate(mine)]
            total = total + sum(most) / len(mine)
    return total
