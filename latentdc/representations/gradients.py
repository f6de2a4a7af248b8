"""The gradients of a network's weights as points: one for each class, row by row of each weight tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentdc.errors import InputError
from latentdc.types import Batch, Net

_MOST_ROWS = 512
"""Images a network sees at a time where nothing is differentiated again: a mean gradient is a sum over parts."""


@dataclass(frozen=True)
class Gradients:
    """Gradients of each class's mean cross-entropy, ``g_c = ∇_θ Σ_i w_i ℓ(ψ_θ(x_i), y_i) / Σ_i w_i`` over its images.

    One tensor ``(c, o, d)`` for each weight tensor θ of two axes or more: the c classes of the batch in ascending
    order, its o output units (the first axis), the d weights of each. Tensors of one axis, biases and the scales and
    shifts of norms, are not looked at. Classes do not see each other, so they may be shared out.

    Differentiable to the images, as the gradient of a gradient: the network is run with copies of its weights that
    share their memory, and is left as it was. A class takes as much memory as its graph; all classes of a batch are
    alive at once.

    Raises:
        InputError: when called with something that is no module, such as a compiled network, which torch cannot
            differentiate twice.

    *Reference:* Zhao, Mopuri and Bilen 2021, "Dataset Condensation with Gradient Matching", arXiv 2006.05929, eq. 9.
    """

    kind: ClassVar[str] = "parameters"
    cite: ClassVar[tuple[str, ...]] = ("zhao2021dc",)

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Gradients of each weight tensor, class by class."""
        if not isinstance(net, nn.Module):
            raise InputError(
                'see = "gradients" differentiates through a gradient, which a compiled network does not allow: set '
                "compile = false."
            )
        # The weights' copies learn, so that the graph must not be asked for where nothing else does.
        free = any(part is not None and part.requires_grad for part in (batch.x, batch.y, batch.w))
        differentiable = differentiable and free and torch.is_grad_enabled()
        found = [self._of_class(net, batch, cls, differentiable) for cls in torch.unique(batch.owner).tolist()]
        return tuple(torch.stack(layer) for layer in zip(*found, strict=True))

    def _of_class(self, net: nn.Module, batch: Batch, cls: int, differentiable: bool) -> list[Tensor]:
        rows = (batch.owner == cls).nonzero().flatten()
        share = torch.ones_like(rows, dtype=batch.x.dtype) if batch.w is None else batch.w[rows].to(batch.x.dtype)
        share = share / share.sum()
        weights = {name: value.detach().requires_grad_() for name, value in net.named_parameters()}
        looked_at = [value for value in weights.values() if value.ndim > 1]
        size = len(rows) if differentiable else _MOST_ROWS
        total: list[Tensor] = []
        for part, mass in zip(torch.split(rows, size), torch.split(share, size), strict=True):
            with torch.enable_grad():
                logits = torch.func.functional_call(net, weights, (batch.x[part],))
                logits = logits if logits.dtype == batch.x.dtype else logits.float()
                losses = functional.cross_entropy(logits, batch.y[part].to(logits), reduction="none")
                found = torch.autograd.grad((mass * losses).sum(), looked_at, create_graph=differentiable)
            total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
        return [gradient.flatten(1) for gradient in total]
