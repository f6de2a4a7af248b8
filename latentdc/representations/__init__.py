"""Representations: what of a network's reaction to images is compared."""

from latentdc.representations.base import Representation
from latentdc.representations.features import Features

REPRESENTATIONS: dict[str, type[Features]] = {"features": Features}

__all__ = ["REPRESENTATIONS", "Features", "Representation"]
