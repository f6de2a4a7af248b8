"""Objectives: what makes a synthetic set a good one."""

from latentdc.objectives.base import Objective
from latentdc.objectives.match import Match

OBJECTIVES: dict[str, type[Objective]] = {"match": Match}

__all__ = ["OBJECTIVES", "Match", "Objective"]
