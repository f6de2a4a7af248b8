"""Gradient matching over all classes at once, and by plain differences, as their equations read."""

from __future__ import annotations

import copy

import torch
from reference.gradient_loop import gradients_of
from torch import Tensor, nn


def joint_gradient_loop(
    net: nn.Module, real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, eps: float = 1e-6
) -> Tensor:
    """One less the cosine, over tensors and units, of the mean of the classes' real gradients and a joint one.

    The joint one is the gradient of the mean cross-entropy of all synthetic images together.
    """
    classes = sorted(set(syn_owner.tolist()))
    per_class = [gradients_of(net, real[real_owner == cls], cls, create_graph=False) for cls in classes]
    theirs = [sum(layer) / len(classes) for layer in zip(*per_class, strict=True)]
    learner = copy.deepcopy(net).requires_grad_()
    loss = nn.functional.cross_entropy(learner(syn), syn_owner)
    ours = torch.autograd.grad(loss, [p for p in learner.parameters() if p.ndim > 1], create_graph=True)
    total = torch.zeros((), dtype=syn.dtype)
    for a, b in zip(theirs, ours, strict=True):
        for unit_a, unit_b in zip(a, b, strict=True):
            total = total + 1 - (unit_a * unit_b).sum() / (unit_a.norm() * unit_b.norm() + eps)
    return total


def difference_loop(
    net: nn.Module, real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor, power: int = 2
) -> Tensor:
    """Sum over classes and convolutions of powers of the differences of their gradients, weight by weight."""
    total = torch.zeros((), dtype=syn.dtype)
    for cls in sorted(set(syn_owner.tolist())):
        theirs = gradients_of(net, real[real_owner == cls], cls, create_graph=False)
        ours = gradients_of(net, syn[syn_owner == cls], cls, create_graph=True)
        for a, b in zip(theirs, ours, strict=True):
            if a.ndim > 2:
                total = total + ((a - b).abs() ** power).sum()
    return total
