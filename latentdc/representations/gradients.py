"""The gradients of a network's weights: one for each class or of all together, row by row or as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.errors import InputError
from latentdc.networks.compiled import module_of, scores
from latentdc.representations.base import shares_of
from latentdc.representations.projection import must_project, projected
from latentdc.types import EMBEDDING, Batch, Net, Part

_MOST_ROWS = 512
"""Images a network sees at a time where nothing is differentiated again: a mean gradient is a sum over parts."""
_CHOICES = {"layers": ("all", "convolutions"), "rows": ("unit", "whole"), "scope": ("class", "all")}


@dataclass(frozen=True)
class Gradients:
    """Gradients of each class's mean cross-entropy, ``g_c = ∇_θ Σ_i w_i ℓ(ψ_θ(x_i), y_i) / Σ_i w_i`` over its images.

    One tensor ``(c, o, d)`` for each weight tensor θ of two axes or more: the c classes of the batch in ascending
    order, its o output units (the first axis), the d weights of each. Tensors of one axis, biases and the scales and
    shifts of norms, are not looked at. Classes do not see each other, so they may be shared out; unless
    ``scope = "all"``, which shows their mean ``(1/c) Σ_c g_c`` alone, ``(1, o, d)``: where every class has as many
    images, the gradient of the mean over all images.

    Of networks that normalise each image by itself, ``g_c`` is a mean over images, so that a sketch can hold
    ``Σ_i ∇_θ ℓ_i`` of each class and pair: as many numbers as there are weights, times classes, times pairs. That is so
    with ``scope = "all"`` too, a mean over classes and not over images. With ``project = d'`` each output unit keeps d'
    numbers, ``g R`` with one fixed R ``(d, d')`` for both sides, which keeps angles and differences nearly; "whole"
    puts these side by side.

    Differentiable to the images, as the gradient of a gradient, which torch does not compile: of compiled networks only
    the real side's pass is. The network is run with copies of its weights that share their memory, and is left as it
    was. A class takes as much memory as its graph; all classes of a batch are alive at once.

    Raises:
        InputError: an unknown choice; when called with something that is no module, or with a network that has no such
            layers.

    *Reference:* Zhao, Mopuri and Bilen 2021, "Dataset Condensation with Gradient Matching", arXiv 2006.05929, eq. 9;
    ``layers = "convolutions"``: Kim et al. 2022 (IDC), arXiv 2205.14959, as their code has it; ``scope = "all"``:
    Lee et al. 2022, "Dataset Condensation with Contrastive Signals", arXiv 2202.02916.
    """

    kind: ClassVar[str] = "parameters"
    cite: ClassVar[tuple[str, ...]] = ("zhao2021dc",)
    needs: ClassVar[frozenset[Part]] = EMBEDDING
    needs_classifier: ClassVar[bool] = True

    layers: str = "all"
    """``"all"`` weight tensors of two axes or more; ``"convolutions"``: of more than two, so not the classifier's."""
    rows: str = "unit"
    """``"unit"``: a row per output unit, one tensor per layer; ``"whole"``: all weights in one row, one tensor."""
    scope: str = "class"
    """``"class"``: a gradient for each class; ``"all"``: one, the mean of theirs."""
    project: int | None = None
    """Numbers of each output unit that a random projection keeps, or None for all."""
    seed: int = 0
    """Seed of the projection."""

    @classmethod
    def cite_for(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``cite``, and whose idea the options are."""
        others = (("layers", "convolutions", "kim2022idc"), ("scope", "all", "lee2022dcc"))
        return (*cls.cite, *(key for name, value, key in others if options.get(name) == value))

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                given = " or ".join(f'"{choice}"' for choice in choices)
                raise InputError(f'see.{name} = "{getattr(self, name)}": give {given}')
        must_project(self.project)

    @property
    def summed(self) -> Gradients:
        """The gradients of the classes."""
        return replace(self, scope="class")

    def of_means(self, means: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradients of the classes, or their mean."""
        return tuple(layer.mean(0, keepdim=True) if self.scope == "all" else layer for layer in means)

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Gradients of each weight tensor, class by class."""
        # The weights' copies learn, so that the graph must not be asked for where nothing else does.
        free = any(part is not None and part.requires_grad for part in (batch.x, batch.y, batch.w))
        differentiable = differentiable and free and torch.is_grad_enabled()
        shares = shares_of(batch)
        if self.scope == "all":
            shares = [(torch.cat([rows for rows, _ in shares]), torch.cat([w for _, w in shares]) / len(shares))]
        found = [self._gradient(net, batch, rows, share, differentiable) for rows, share in shares]
        return tuple(torch.stack(layer) for layer in zip(*found, strict=True))

    def _gradient(self, net: Net, batch: Batch, rows: Tensor, share: Tensor, differentiable: bool) -> list[Tensor]:
        """Of ``Σ_i share_i ℓ_i`` over some rows: ``(o, d)`` of each layer, or ``(1, d)`` of all."""
        module = module_of(net)
        weights = {name: value.detach().requires_grad_() for name, value in module.named_parameters()}
        looked_at = [value for value in weights.values() if value.ndim > (2 if self.layers == "convolutions" else 1)]
        if not looked_at:
            raise InputError(
                f'see.layers = "{self.layers}": {type(module).__name__} has no such weight tensor. Use layers = "all", '
                'or a convolutional network such as source.arch = "convnet".'
            )
        size = len(rows) if differentiable else _MOST_ROWS
        total: list[Tensor] = []
        for part, mass in zip(torch.split(rows, size), torch.split(share, size), strict=True):
            with torch.enable_grad():
                logits = scores(net, weights, batch.x[part], once=not differentiable)
                logits = logits if logits.dtype == batch.x.dtype else logits.float()
                losses = functional.cross_entropy(logits, batch.y[part].to(logits), reduction="none")
                found = torch.autograd.grad((mass * losses).sum(), looked_at, create_graph=differentiable)
            total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
        layers = [projected(gradient.flatten(1), self.project, self.seed) for gradient in total]
        return [torch.cat([layer.flatten() for layer in layers])[None]] if self.rows == "whole" else layers
