"""Gradient matching as its equations read: a loop over classes, weight tensors and output units."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def gradients_of(net: nn.Module, x: Tensor, cls: int, *, create_graph: bool) -> list[Tensor]:
    """Gradients of the mean cross-entropy of images of one class, one for each weight tensor of two axes or more."""
    learner = copy.deepcopy(net).requires_grad_()
    label = torch.full((len(x),), cls)
    loss = nn.functional.cross_entropy(learner(x), label)
    return list(torch.autograd.grad(loss, [p for p in learner.parameters() if p.ndim > 1], create_graph=create_graph))


def gradient_loop(
    net: nn.Module, real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, eps: float = 1e-6
) -> Tensor:
    """Sum over classes, weight tensors of two axes or more, and output units of one less the cosine."""
    total = torch.zeros((), dtype=syn.dtype)
    for cls in sorted(set(syn_owner.tolist())):
        theirs = gradients_of(net, real[real_owner == cls], cls, create_graph=False)
        ours = gradients_of(net, syn[syn_owner == cls], cls, create_graph=True)
        for a, b in zip(theirs, ours, strict=True):
            for unit_a, unit_b in zip(a, b, strict=True):
                inner = (unit_a * unit_b).sum()
                total = total + 1 - inner / (unit_a.norm() * unit_b.norm() + eps)
    return total
