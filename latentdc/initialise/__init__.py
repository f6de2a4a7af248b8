"""Where latents start, and in which order the rows of a class are kept."""

from latentdc.initialise.distribution import KIND as STATISTICS
from latentdc.initialise.distribution import fit_distribution, stored
from latentdc.initialise.inversion import Inversion, Inverted, invert, nearest_draws
from latentdc.initialise.order import herd, order_rows
from latentdc.initialise.report import reconstruction, start_report
from latentdc.initialise.request import Request, Start, encodes
from latentdc.initialise.start import STARTS, initialise, start_images

__all__ = [
    "STARTS",
    "STATISTICS",
    "Inversion",
    "Inverted",
    "Request",
    "Start",
    "encodes",
    "fit_distribution",
    "herd",
    "initialise",
    "invert",
    "nearest_draws",
    "order_rows",
    "reconstruction",
    "start_images",
    "start_report",
    "stored",
]
