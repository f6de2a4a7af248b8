"""Objectives: what makes a synthetic set a good one."""

from latentdc.objectives.base import Objective
from latentdc.objectives.match import Match
from latentdc.objectives.penalties import Pairwise, Penalised

OBJECTIVES: dict[str, type[Objective]] = {"match": Match}
PENALTIES: dict[str, type[Objective]] = {"pairwise": Pairwise}
"""What a recipe may add to the objective, each weighted by itself."""

__all__ = ["OBJECTIVES", "PENALTIES", "Match", "Objective", "Pairwise", "Penalised"]
