"""Representations: what of a network's reaction to images is compared."""

from typing import Any

from latentdc.representations.attention import Attention
from latentdc.representations.base import Additive, Representation, in_full, needs_of, rows_of, scope_of, seen_together
from latentdc.representations.curvature import HeadVariance
from latentdc.representations.features import Features
from latentdc.representations.gradients import Gradients
from latentdc.representations.logits import Logits
from latentdc.representations.statistics import BatchStatistics

REPRESENTATIONS: dict[str, type[Any]] = {
    "features": Features,
    "attention": Attention,
    "logits": Logits,
    "statistics": BatchStatistics,
    "gradients": Gradients,
    "head-variance": HeadVariance,
}

__all__ = [
    "REPRESENTATIONS",
    "Additive",
    "Attention",
    "BatchStatistics",
    "Features",
    "Gradients",
    "HeadVariance",
    "Logits",
    "Representation",
    "in_full",
    "needs_of",
    "rows_of",
    "scope_of",
    "seen_together",
]
