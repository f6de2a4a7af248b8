"""Compare methods on one footing: recipes times variants, each condensed for as long as the others and judged alike."""

from latentdc.pipelines.comparison.run import compare
from latentdc.pipelines.comparison.wanted import Comparison

__all__ = ["Comparison", "compare"]
