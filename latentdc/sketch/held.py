"""The numbers of a sketch, and how the real side of a step follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdc.discrepancies import Discrepancy, Summary
from latentdc.discrepancies.base import must_cover
from latentdc.representations import Additive, Representation, scope_of

_PLUS = "plus."


def term_prefix(term: int) -> str:
    """What the names of a term's tensors begin with in a file; of the first term nothing."""
    return f"{_PLUS}{term}." if term else ""


@dataclass(frozen=True)
class Held:
    """Sums and counts of every pair and class, one tensor of sums for each tensor that is looked at.

    Three kinds: sums that a discrepancy takes of points; sums of parameters (``Additive``); or, where ``masses`` are
    there, sums of the points of each cluster, whose means are landmarks.
    """

    sums: tuple[Tensor, ...]
    """``(pairs, k, d)``, or ``(pairs, k, o, d)`` of parameters, float64; of clusters ``(pairs, k, m, d)``, float32."""
    counts: Tensor
    """Images summed ``(pairs, k)``, float64."""
    scales: tuple[Tensor, ...] = ()
    """Squared kernel lengths ``(pairs, k)``, float64, or empty."""
    masses: tuple[Tensor, ...] = ()
    """Points of each cluster ``(pairs, k, m)``, float64, 0 where a class has fewer; or empty."""
    plus: tuple[Held, ...] = ()
    """Of an objective of several terms what its further ones hold, each with its own counts."""

    @property
    def terms(self) -> tuple[Held, ...]:
        """What each term of the objective holds."""
        return (dataclasses.replace(self, plus=()), *self.plus)

    def tensors(self) -> dict[str, Tensor]:
        """By their names in a file."""
        layers = {"sums": self.sums, "scales": self.scales, "masses": self.masses}
        named = {f"{kind}.{layer}": each for kind, all_ in layers.items() for layer, each in enumerate(all_)}
        further = [(term_prefix(term), held.tensors()) for term, held in enumerate(self.plus, 1)]
        return {
            "counts": self.counts,
            **named,
            **{f"{at}{name}": each for at, its in further for name, each in its.items()},
        }

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Held:
        """From ``tensors()``."""

        def layers(kind: str) -> tuple[Tensor, ...]:
            num = sum(name.startswith(f"{kind}.") for name in tensors)
            return tuple(tensors[f"{kind}.{layer}"] for layer in range(num))

        num = sum(name.startswith(_PLUS) and name.endswith(".counts") for name in tensors)
        starts = [term_prefix(term) for term in range(1, num + 1)]
        parts = [{n.removeprefix(at): each for n, each in tensors.items() if n.startswith(at)} for at in starts]
        return Held(layers("sums"), tensors["counts"], layers("scales"), layers("masses"), tuple(map(Held.of, parts)))

    @property
    def num_bytes(self) -> int:
        """Bytes of all numbers."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def to(self, device: torch.device | str) -> Held:
        """The same on another device."""
        return Held.of({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def combined(self, other: Held, sign: int) -> Held:
        """Of both sets together (``sign`` 1), or of this one without the other (-1); of landmarks their union."""
        if self.plus:
            first, *others = (a.combined(b, sign) for a, b in zip(self.terms, other.terms, strict=True))
            return dataclasses.replace(first, plus=tuple(others))
        counts = self.counts + sign * other.counts.to(self.counts)
        if self.masses:
            sums, masses = (
                tuple(torch.cat([a, b.to(a)], 2) for a, b in zip(*each, strict=True))
                for each in ((self.sums, other.sums), (self.masses, other.masses))
            )
            return Held(sums, counts, self.scales, masses)
        sums = tuple(a + sign * b.to(a) for a, b in zip(self.sums, other.sums, strict=True))
        # A class of which nothing is left is exactly zero, without the residue of float64 rounding.
        some = [(counts > 0).view(*counts.shape, *[1] * (each.ndim - 2)) for each in sums]
        return Held(tuple(torch.where(*each, 0.0) for each in zip(some, sums, strict=True)), counts, self.scales)

    @torch.no_grad()
    def summaries(self, pair: int, see: Representation, by: Discrepancy, classes: Sequence[int]) -> tuple[Summary, ...]:
        """What a pair shows of the real set, one summary a layer, at least of ``classes``.

        Raises:
            InputError: parameters of a class without images.
        """
        counts = self.counts[pair]
        if isinstance(see, Additive):
            return self._of_parameters(pair, see, by, classes)
        if self.masses:
            return tuple(self._of_landmarks(pair, layer, by, classes) for layer in range(len(self.sums)))
        scales = [each[pair] for each in self.scales] if self.scales else [None] * len(self.sums)
        return tuple(Summary(sums[pair], counts, scale=scale) for sums, scale in zip(self.sums, scales, strict=True))

    def _of_parameters(self, pair: int, see: Additive, by: Discrepancy, classes: Sequence[int]) -> tuple[Summary, ...]:
        counts = self.counts[pair]
        owner = torch.tensor(sorted(classes), device=counts.device)
        must_cover(Summary(self.sums[0][pair], counts), _asked(counts, owner))
        w = counts[owner]
        shown = see.of_means([sums[pair][owner] / w[:, None, None] for sums in self.sums])
        if scope_of(see) == "all":
            owner, w = torch.zeros_like(owner[:1]), w.sum(0, keepdim=True)
        return tuple(by.summarise(rows, owner, len(counts), w) for rows in shown)

    def _of_landmarks(self, pair: int, layer: int, by: Discrepancy, classes: Sequence[int]) -> Summary:
        masses = self.masses[layer][pair]  # (k, m)
        asked = _asked(masses, torch.tensor(list(classes), device=masses.device))
        owner, slot = ((masses > 0) & asked[:, None]).nonzero(as_tuple=True)
        w = masses[owner, slot]
        sums = self.sums[layer][pair][owner, slot]
        scale = self.scales[layer][pair] if self.scales else None
        return by.summarise(sums / w[:, None].to(sums), owner, len(masses), w, scale=scale)


def _asked(like: Tensor, classes: Tensor) -> Tensor:
    """Which of the k classes are among some ``(k,)``, bool; k is the first axis of ``like``."""
    return torch.zeros(len(like), dtype=torch.bool, device=like.device).index_fill(0, classes, True)
