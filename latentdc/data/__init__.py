"""Real data: stores, sources, samplers and augmentation."""

from __future__ import annotations

from latentdc.data.augment import AUGMENTS
from latentdc.data.sampling import SAMPLERS

__all__ = ["AUGMENTS", "SAMPLERS"]
