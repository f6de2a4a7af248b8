"""Real data: stores, sources, samplers and augmentation."""
