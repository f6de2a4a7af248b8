"""What every objective is: a scalar that says how bad a synthetic batch is under one step's view of the real set."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from latentdc.source import Look, View
from latentdc.types import FEATURES, Batch, Part


class Objective(nn.Module):
    """``(view, syn) → scalar`` to minimise. Leaves ``view.net`` untouched; may own parameters of its own."""

    scope: str = "class"
    """``"class"``: a sum over classes, so classes may be shared out; ``"all"``: needs the whole set at once."""
    needs_start: bool = False
    """Whether it looks at the real images that the rows started from; see ``latentdc.source.Started``."""
    needs_images: bool = False
    """Whether it looks at single real images, which a sketch does not hold."""
    reads_labels: bool = False
    """Whether it looks at the targets y of the synthetic images itself, not by way of what a match shows."""
    needs: frozenset[Part] = FEATURES
    """What it looks at of the step's network besides embedding and class scores: the less, the faster if compiled."""
    needs_classifier: bool = False
    """Whether it looks at class scores of the step's network, which not every network has."""
    orders: bool = False
    """Whether the order of a class's rows is part of what it optimises."""
    cite: ClassVar[tuple[str, ...]] = ()

    @property
    def looks(self) -> tuple[Look, ...]:
        """What it always asks of the view's real side, with these very parts; none where that is not known.

        Several objectives in one sum then ask together and share the pass. What is not among them is asked by itself.
        """
        return ()

    @abstractmethod
    def forward(self, view: View, syn: Batch) -> Tensor:
        """Scalar loss of the synthetic images."""
