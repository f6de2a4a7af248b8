"""Objectives: what makes a synthetic set a good one."""

from latentdc.objectives.base import Objective
from latentdc.objectives.match import Match
from latentdc.objectives.penalties import (
    PENALTIES,
    CentreClassify,
    CrossEntropy,
    FarFromSelf,
    IntraInter,
    NearReal,
    Pairwise,
    Penalised,
)
from latentdc.objectives.prefixes import Prefixes

OBJECTIVES: dict[str, type[Objective]] = {"match": Match, "prefixes": Prefixes}

__all__ = [
    "OBJECTIVES",
    "PENALTIES",
    "CentreClassify",
    "CrossEntropy",
    "FarFromSelf",
    "IntraInter",
    "Match",
    "NearReal",
    "Objective",
    "Pairwise",
    "Penalised",
    "Prefixes",
]
