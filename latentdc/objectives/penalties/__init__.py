"""Penalties: what is asked of the synthetic images besides the match."""

from latentdc.objectives.base import Objective
from latentdc.objectives.penalties.base import Penalised
from latentdc.objectives.penalties.classify import CentreClassify, CrossEntropy
from latentdc.objectives.penalties.pairwise import Pairwise
from latentdc.objectives.penalties.similarity import FarFromSelf, NearReal
from latentdc.objectives.penalties.spread import IntraInter

PENALTIES: dict[str, type[Objective]] = {
    "pairwise": Pairwise,
    "cross-entropy": CrossEntropy,
    "centre-classify": CentreClassify,
    "intra-inter": IntraInter,
    "near-real": NearReal,
    "far-from-self": FarFromSelf,
}
"""What a recipe may add to the objective, each weighted by itself."""

__all__ = [
    "PENALTIES",
    "CentreClassify",
    "CrossEntropy",
    "FarFromSelf",
    "IntraInter",
    "NearReal",
    "Pairwise",
    "Penalised",
]
