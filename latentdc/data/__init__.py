"""Real data: stores, sources, samplers and augmentation."""

from __future__ import annotations

from latentdc.data.augment import AUGMENTS

__all__ = ["AUGMENTS"]
