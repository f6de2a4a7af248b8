"""What a classifier makes of the images: the step's network of the synthetic ones, their means of the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.discrepancies import Summary
from latentdc.discrepancies.base import class_means
from latentdc.errors import InputError
from latentdc.networks.compiled import behind
from latentdc.objectives.match import Match
from latentdc.objectives.penalties.base import KeptPoints, Penalty, kept
from latentdc.representations import Features, Logits
from latentdc.source import Look, View
from latentdc.types import EMBEDDING, Batch


class CrossEntropy(Penalty):
    """Keeps the step's network in agreement with the synthetic labels.

    ``weight · Σ_c (1/m_c) Σ_{i ∈ S_c} CE(ψ(ω(s_i)), y_i)`` of the class scores that the network gives under the step's
    augmentation draw. It says something where the network has been trained; of fresh ones it is noise.

    Args:
        weight: of this term beside the match, whose weight is 1. IDM's 0.1 to 0.8, and 3 on ImageNet subsets, multiply
            an accuracy in per cent: with ``by_accuracy`` they are 10 to 80, and 300.
        misclassified: count, and average over, only those images which the network takes for another class; as IDM
            does at one image per class.
        by_accuracy: multiply the weight by the network's accuracy on its training images, a share in [0, 1]. The
            networks of a queue know it, as ``net.accuracy``.

    Raises:
        InputError: a weight out of range; when called, ``by_accuracy`` and a network that does not know its accuracy.

    *Reference:* Zhang et al. 2024, "DANCE: Dual-View Distribution Alignment for Dataset Condensation",
    arXiv 2406.01063; Zhao et al. 2023, "Improved Distribution Matching for Dataset Condensation", arXiv 2307.09742.
    *Differs from the authors' code:* DANCE asks another network than the one it matches by, in a pass of its own; here
    it is the step's.
    """

    needs = EMBEDDING
    reads_labels = True
    needs_classifier = True
    cite: ClassVar[tuple[str, ...]] = ("zhang2024dance", "zhao2023idm")

    def __init__(self, weight: float = 1.0, misclassified: bool = False, by_accuracy: bool = False) -> None:
        super().__init__(weight)
        self.misclassified, self.by_accuracy, self.see = misclassified, by_accuracy, Logits()

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Weighted sum over the classes present of their mean cross-entropies."""
        weight = self.weight * (_accuracy(view.net) if self.by_accuracy else 1)
        (logits,) = self.see(view.net, view.augment(syn), differentiable=True)
        with torch.autocast(syn.x.device.type, enabled=False):
            losses = functional.cross_entropy(logits, syn.y.to(logits), reduction="none")  # (n,)
            w = syn.w
            if self.misclassified:
                wrong = (logits.argmax(1) != syn.owner).to(logits)
                w = wrong if w is None else w * wrong
            means, _ = class_means(losses[:, None], syn.owner, syn.y.shape[1], w)
            return weight * means.sum()


def _accuracy(net: object) -> float:
    """Of a network, or of the one that another way to run it stands for."""
    known = (getattr(each, "accuracy", None) for each in behind(net))
    found = next((each for each in known if each is not None), None)
    if found is None:
        raise InputError(
            "the cross-entropy penalty is to be weighted by the network's accuracy, which this one does not know: use "
            "a queue of networks, or leave by_accuracy out."
        )
    return float(found)


@dataclass(frozen=True)
class _Centres(KeptPoints):
    """Mean cross-entropy of each class's real points, by their inner products with the means of the synthetic ones."""

    def __call__(self, real: Summary, points: Tensor, owner: Tensor, w: Tensor | None = None) -> Tensor:
        """Sum over the classes among ``owner``, which are those told apart."""
        means, present = class_means(points, owner, len(real.counts), w)
        classes = present.nonzero().flatten()
        values, weights = kept(real, classes, points)  # (c, n, d), (c, n)
        scores = values @ means[classes].T  # (c, n, c)
        target = torch.arange(len(classes), device=owner.device)[:, None].expand(weights.shape)
        losses = functional.cross_entropy(scores.flatten(0, 1), target.flatten(), reduction="none")
        return (weights.flatten() * losses).sum()


class CentreClassify(Penalty):
    """Asks that the class means of the synthetic features, as a linear classifier, tell the real images apart.

    ``weight · Σ_c (1/n_c) Σ_{x ∈ T_c} CE( (⟨ψ(ω(x)), μ_c'⟩)_c', c )`` with ``μ_c`` the mean of ``ψ(ω(s))`` over S_c,
    features of the embedding. The gradient reaches the synthetic images through all means at once, so the classes
    cannot be shared out. It looks at the step's real images.

    Args:
        weight: of this term beside the match, whose weight is 1. The published 0.01 is that of a sum over 256 images
            of each class: 2.56 of their mean.

    Raises:
        InputError: a weight out of range; when called, a source that holds no real images, such as a sketch.

    *Reference:* Wang et al. 2022, "CAFE: Learning to Condense Dataset by Aligning Features", arXiv 2203.01531, the
    discrimination loss.
    *Differs from the authors' code:* a mean over a class's real images in place of a sum, so that the weight does not
    depend on their number.
    """

    scope = "all"
    needs = EMBEDDING
    needs_images = True
    cite: ClassVar[tuple[str, ...]] = ("wang2022cafe",)

    def __init__(self, weight: float = 2.56) -> None:
        super().__init__(weight)
        self.match = Match(Features(), _Centres())

    @property
    def looks(self) -> tuple[Look, ...]:
        """Of the embedding, all real points."""
        return self.match.looks

    def forward(self, view: View, syn: Batch) -> Tensor:
        """Weighted sum over the classes present of their mean cross-entropies."""
        loss: Tensor = self.match(view, syn)
        return self.weight * loss
