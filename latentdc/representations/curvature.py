"""The variance of a classifier's gradients over the images of a class: a stand-in for the curvature of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latentdc.representations.base import in_full, shares_of
from latentdc.types import EMBEDDING, Batch, Net, Part

_MOST_ROWS = 512
"""Images a network sees at a time where no graph is kept."""


@dataclass(frozen=True)
class HeadMoments:
    """The two means over the images of each class that ``HeadVariance`` follows from: ``m`` and ``s``, ``(c, 2, k d)``.

    They are those of the gradients of the images' cross-entropy by the classifier's weights, and of their squares.
    """

    kind: ClassVar[str] = "parameters"
    needs: ClassVar[frozenset[Part]] = EMBEDDING

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """One tensor: the two moments of each class."""
        differentiable = differentiable and torch.is_grad_enabled()
        with torch.set_grad_enabled(differentiable):
            whole = differentiable or len(batch.x) <= _MOST_ROWS
            # Not even a view of the images themselves: others may have looked at these.
            parts = (batch.x,) if whole else torch.split(batch.x, _MOST_ROWS)
            seen = [(each.last, each.logits) for each in (net.observe(part) for part in parts)]
            h = torch.cat([in_full(last) for last, _ in seen])  # (n, d)
            logits = torch.cat([in_full(scores) for _, scores in seen])  # (n, k)
            with torch.autocast(batch.x.device.type, enabled=False):
                e = logits.softmax(1) - batch.y.to(logits)
                found = [_moments(e[rows], h[rows], share.to(e)) for rows, share in shares_of(batch)]
            return (torch.stack(found),)


@dataclass(frozen=True)
class HeadVariance:
    """Variance over the images of each class of the gradients of their cross-entropy by the classifier's weights.

    The gradient of image i is ``e_i h_iᵀ``, with embedding ``h`` ``(d,)`` and error ``e = softmax − y`` ``(k,)``, so
    that no backward pass is needed: ``m = mean e hᵀ``, ``s = mean e² (h²)ᵀ``, ``Var = s − m ∘ m``. One tensor
    ``(c, 1, k d)``, the classes of the batch in ascending order, each in one row, as the paper takes one norm of it. Of
    a class with one image it is zero, and so is its gradient. A sketch holds sums of the two
    means' terms, ``2 k d`` numbers for each class and pair. Exact where the classifier is one linear layer on the
    embedding, as it is in every network here.

    *Reference:* Shin et al. 2023, "Loss-Curvature Matching for Dataset Selection and Condensation", arXiv 2303.04449,
    the form for condensation. The authors have not released its code; the closed form is re-derived.
    """

    kind: ClassVar[str] = "parameters"
    cite: ClassVar[tuple[str, ...]] = ("shin2023lcmat",)
    needs: ClassVar[frozenset[Part]] = EMBEDDING
    needs_classifier: ClassVar[bool] = True

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """One tensor: the variance of each class."""
        return self.of_means(self.summed(net, batch, differentiable=differentiable))

    @property
    def summed(self) -> HeadMoments:
        """The two moments that the variance follows from."""
        return HeadMoments()

    def of_means(self, means: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``s − m ∘ m`` of each class."""
        return tuple(both[:, 1:] - both[:, :1].square() for both in means)


def _moments(e: Tensor, h: Tensor, share: Tensor) -> Tensor:
    """``(2, k d)`` of errors ``(n, k)`` and embeddings ``(n, d)`` of one class."""
    mean = (e * share[:, None]).T @ h
    square = (e.square() * share[:, None]).T @ h.square()
    return torch.stack([mean, square]).flatten(1)
