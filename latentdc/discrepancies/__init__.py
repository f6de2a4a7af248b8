"""Discrepancies: how far the synthetic points are from the real ones, class by class."""

from latentdc.discrepancies.adversarial import AdversarialCharacteristicFunction
from latentdc.discrepancies.angles import Cosine
from latentdc.discrepancies.atoms import Atoms
from latentdc.discrepancies.base import Discrepancy, Summary
from latentdc.discrepancies.characteristic import CharacteristicFunction
from latentdc.discrepancies.fourier import RandomFourier
from latentdc.discrepancies.moments import Mean, Moments, Norm
from latentdc.discrepancies.pairwise import Energy, Mmd, Polynomial
from latentdc.discrepancies.sinkhorn import Sinkhorn
from latentdc.discrepancies.sliced import Sliced

DISCREPANCIES: dict[str, type[Discrepancy]] = {
    "mean": Mean,
    "norm": Norm,
    "moments": Moments,
    "poly": Polynomial,
    "mmd": Mmd,
    "rff": RandomFourier,
    "cf": CharacteristicFunction,
    "cf-adversarial": AdversarialCharacteristicFunction,
    "energy": Energy,
    "sliced": Sliced,
    "sinkhorn": Sinkhorn,
    "atoms": Atoms,
    "cosine": Cosine,
}

__all__ = [
    "DISCREPANCIES",
    "AdversarialCharacteristicFunction",
    "Atoms",
    "CharacteristicFunction",
    "Cosine",
    "Discrepancy",
    "Energy",
    "Mean",
    "Mmd",
    "Moments",
    "Norm",
    "Polynomial",
    "RandomFourier",
    "Sinkhorn",
    "Sliced",
    "Summary",
]
