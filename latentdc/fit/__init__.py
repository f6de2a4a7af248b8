"""Training of small decoders on your own images.

``latentdc.fit.run.fit_gan(store, recipe, out=..., steps=... or minutes=..., seed=0, device="cpu", precision="fp32",
resume=False, checkpoint_seconds=120.0, figures=True, also_fits=(), progress=True) -> Path`` with ``recipe`` a
``latentdc.fit.gan.GanRecipe``; both are importable from here and loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentdc.fit.gan import GanRecipe
    from latentdc.fit.run import fit_gan

__all__ = ["GanRecipe", "fit_gan"]


def __getattr__(name: str) -> object:
    # Late: importing torch and diffusers takes seconds, and the command line lists names long before it trains.
    if name == "fit_gan":
        from latentdc.fit.run import fit_gan

        return fit_gan
    if name == "GanRecipe":
        from latentdc.fit.gan import GanRecipe

        return GanRecipe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
