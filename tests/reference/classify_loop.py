"""Cross-entropy calibration and CAFE's discrimination term as their equations read: loops over images."""

from __future__ import annotations

import math

from torch import Tensor


def _cross_entropy(scores: list[Tensor], right: int) -> Tensor:
    return -scores[right] + sum(score.exp() for score in scores).log()  # type: ignore[union-attr]


def cross_entropy_loop(logits: Tensor, owner: Tensor, *, misclassified: bool = False) -> float:
    """Sum over classes of the mean cross-entropy of their images, or of those taken for another class."""
    total = 0.0
    for cls in sorted(set(owner.tolist())):
        losses = []
        for scores, mine in zip(logits.tolist(), owner.tolist(), strict=True):
            if mine == cls and not (misclassified and scores[cls] == max(scores)):
                losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[cls])
        total += sum(losses) / len(losses) if losses else 0.0
    return total


def centre_classify_loop(real: Tensor, real_owner: Tensor, syn: Tensor, syn_owner: Tensor) -> Tensor:
    """Sum over classes of the mean cross-entropy of real features by their inner products with synthetic means."""
    classes = sorted(set(syn_owner.tolist()))
    centres = [syn[syn_owner == cls].mean(0) for cls in classes]
    total = syn.new_zeros(())
    for place, cls in enumerate(classes):
        losses = [
            _cross_entropy([(each * centre).sum() for centre in centres], place)
            for each, mine in zip(real, real_owner.tolist(), strict=True)
            if mine == cls
        ]
        total = total + sum(losses) / len(losses)
    return total
