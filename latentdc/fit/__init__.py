"""Training of small decoders on your own images.

``fit(store, recipe, out=..., steps=... or minutes=...)`` (see ``latentdc.fit.run``) with a ``GanRecipe``, a
``TuneRecipe``, an ``AutoencoderRecipe`` or a ``DiffusionRecipe``; all are importable from here and loaded when first
used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentdc.fit.autoencoder import AutoencoderRecipe
    from latentdc.fit.diffusion import DiffusionRecipe
    from latentdc.fit.gan import GanRecipe
    from latentdc.fit.run import fit
    from latentdc.fit.tune import TuneRecipe

__all__ = ["AutoencoderRecipe", "DiffusionRecipe", "GanRecipe", "TuneRecipe", "fit"]

_HOME = {
    "AutoencoderRecipe": "autoencoder",
    "DiffusionRecipe": "diffusion",
    "GanRecipe": "gan",
    "TuneRecipe": "tune",
    "fit": "run",
}


def __getattr__(name: str) -> object:
    # Late: importing torch and diffusers takes seconds, and the command line lists names long before it trains.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
