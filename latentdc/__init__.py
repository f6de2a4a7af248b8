"""latentdc: dataset condensation in the latent space of pretrained generators.

The names below are the library's public face. Each is imported on first use (PEP 562), so ``import latentdc`` costs
milliseconds and ``latentdc --help`` answers at once.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

PUBLIC: dict[str, tuple[str, ...]] = {
    "latentdc.pipelines.condensation": ("CondensationPipeline", "CondensationOutput"),
    "latentdc.pipelines.synthesis": ("DatasetSynthesisPipeline", "DatasetSynthesisOutput"),
    "latentdc.data.sources": ("open_data",),
    "latentdc.data.store": ("ClassStore",),
    "latentdc.bundle": ("Bundle", "load_bundle", "save_bundle"),
    "latentdc.sketch": ("Sketch",),
    "latentdc.source": ("Minibatches", "View"),
    "latentdc.objectives": ("Match",),
    "latentdc.latents": ("decode", "decoded"),
    "latentdc.recipe": ("Recipe", "load_recipe"),
    "latentdc.types": ("Batch", "DataSpec", "Observation"),
    "latentdc.errors": (
        "BundleError",
        "DataError",
        "DivergenceError",
        "InputError",
        "LatentDCError",
        "MissingExtraError",
        "RecipeError",
    ),
}
"""The one list of public names, by the module that defines them.

The verbs ``condense``, ``sketch`` and ``evaluate`` are imported from the modules of the same names: a package attribute
cannot be both a module and a function.
"""

_HOME = {name: module for module, names in PUBLIC.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'latentdc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
