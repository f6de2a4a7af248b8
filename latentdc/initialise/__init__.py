"""Where latents start, and in which order the rows of a class are kept."""

from latentdc.initialise.order import herd, order_rows
from latentdc.initialise.start import STARTS, initialise

__all__ = ["STARTS", "herd", "initialise", "order_rows"]
