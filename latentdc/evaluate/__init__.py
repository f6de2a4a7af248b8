"""Student evaluation: protocols, honest baselines, reports."""

from latentdc.evaluate.baselines import BASELINES
from latentdc.evaluate.compare import evaluate
from latentdc.evaluate.protocols import PROTOCOLS, Protocol
from latentdc.evaluate.records import Report

__all__ = ["BASELINES", "PROTOCOLS", "Protocol", "Report", "evaluate"]
