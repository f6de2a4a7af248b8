"""Representations: what of a network's reaction to images is compared."""

from typing import Any

from latentdc.representations.base import Representation, rows_of
from latentdc.representations.features import Features
from latentdc.representations.gradients import Gradients

REPRESENTATIONS: dict[str, type[Any]] = {"features": Features, "gradients": Gradients}

__all__ = ["REPRESENTATIONS", "Features", "Gradients", "Representation", "rows_of"]
