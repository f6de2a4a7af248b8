"""Discrepancies: how far the synthetic points are from the real ones, class by class."""

from latentdc.discrepancies.angles import Cosine
from latentdc.discrepancies.base import Discrepancy, Summary
from latentdc.discrepancies.fourier import RandomFourier
from latentdc.discrepancies.moments import Mean
from latentdc.discrepancies.pairwise import Energy, Mmd

DISCREPANCIES: dict[str, type[Discrepancy]] = {
    "mean": Mean,
    "mmd": Mmd,
    "rff": RandomFourier,
    "energy": Energy,
    "cosine": Cosine,
}

__all__ = ["DISCREPANCIES", "Cosine", "Discrepancy", "Energy", "Mean", "Mmd", "RandomFourier", "Summary"]
