"""Discrepancies: how far the synthetic points are from the real ones, class by class."""

from latentdc.discrepancies.base import Discrepancy, Summary
from latentdc.discrepancies.moments import Mean

DISCREPANCIES: dict[str, type[Discrepancy]] = {"mean": Mean}

__all__ = ["DISCREPANCIES", "Discrepancy", "Mean", "Summary"]
