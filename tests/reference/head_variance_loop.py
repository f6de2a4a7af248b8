"""The variance of the classifier's gradients as its definition reads: one backward pass for each image."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def head_variance_loop(net: nn.Module, x: Tensor, owner: Tensor, cls: int) -> Tensor:
    """Elementwise variance ``(k, d)`` of the gradients of single images of a class by the classifier's weights."""
    learner = copy.deepcopy(net).requires_grad_()
    gradients = []
    for image, mine in zip(x, owner.tolist(), strict=True):
        if mine == cls:
            loss = nn.functional.cross_entropy(learner(image[None]), torch.tensor([cls]))
            (gradient,) = torch.autograd.grad(loss, [learner.classifier.weight], create_graph=True)
            gradients.append(gradient)
    mean = sum(gradients) / len(gradients)
    return sum((gradient - mean) ** 2 for gradient in gradients) / len(gradients)
