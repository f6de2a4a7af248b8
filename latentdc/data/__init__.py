"""Real data: stores, sources, samplers and augmentation."""

from __future__ import annotations

from latentdc.data.augment import DSA, NoAugment
from latentdc.data.sampling import UniformSampler

AUGMENTS: dict[str, type[DSA] | type[NoAugment]] = {"dsa": DSA, "none": NoAugment}
SAMPLERS: dict[str, type[UniformSampler]] = {"uniform": UniformSampler}
