"""Differentiable siamese augmentation from explicit parameters: the same draw is the same transform on any tensor.

Draws are made on the CPU from a keyed generator, before any chunking, and can be stored (``dump``, ``load``).
Transforms work in standardised space, ``(x − mean) / std``, so that what is cut away is the data set's mean colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from latentdc.data.transforms import TRANSFORMS
from latentdc.errors import BundleError, InputError, unknown
from latentdc.types import DataSpec

MAX_SHIFT = 0.125
"""Largest translation, as a share of the image side."""
CUTOUT_SIDE = 0.5
"""Side of the cut-out square, as a share of the image side."""
MAX_SCALE = 1.2
"""Scale factors lie between its inverse and it."""
MAX_DEGREES = 15.0
"""Rotations lie between its negative and it."""

MOVES = ("crop", "scale", "rotate")
"""Groups that move pixels, of which mode ``"I"`` picks one."""


class AugmentDraw(NamedTuple):
    """One transform with its parameters: one row per image, or a single row shared by all images."""

    op: str
    params: dict[str, Tensor]
    """Each ``(n,)`` or ``(1,)`` on the CPU: float32, or int64 for pixels and flags."""


@runtime_checkable
class Augment(Protocol):
    """What a source and a trainer need of an augmentation."""

    def for_data(self, spec: DataSpec) -> Self:
        """The same augmentation without what would change a label of this data set."""
        ...

    def draw(self, num: int, image_shape: Sequence[int], rng: torch.Generator, *, shared: bool) -> list[AugmentDraw]:
        """Parameters for ``num`` images ``(c, h, w)``: one row in all if ``shared``, else one per image."""
        ...

    def apply(self, x: Tensor, draws: Sequence[AugmentDraw], spec: DataSpec) -> Tensor:
        """Transformed images; same shape, differentiable."""
        ...


@dataclass(frozen=True)
class NoAugment:
    """Leaves images as they are."""

    cite: ClassVar[tuple[str, ...]] = ()

    def for_data(self, spec: DataSpec) -> Self:
        """Itself, for any data set."""
        del spec
        return self

    def draw(self, num: int, image_shape: Sequence[int], rng: torch.Generator, *, shared: bool) -> list[AugmentDraw]:
        """No transform; the generator is not used."""
        del num, image_shape, rng, shared
        return []

    def apply(self, x: Tensor, draws: Sequence[AugmentDraw], spec: DataSpec) -> Tensor:
        """``x`` itself when there is nothing to apply; otherwise what the draws say."""
        return _apply(x, draws, spec)


@dataclass(frozen=True)
class DSA:
    """Differentiable siamese augmentation: colour, crop, cutout, flip, scale and rotation from one explicit draw.

    With ``mode="S"`` a call picks one group of the strategy, each equally likely; with ``"M"`` it applies all in order;
    with ``"I"`` all in order but for crop, scale and rotate, which move pixels: of these it picks one.
    Ranges for an image of side H: brightness ± 0.5 (in standard deviations), saturation factor 0 … 2, contrast factor
    0.5 … 1.5; translation by whole pixels up to ⌊H/8 + ½⌋; a square of side ⌊H/2 + ½⌋ cut out; mirror with
    probability ½; scale 1/1.2 … 1.2 on each axis; rotation ± 15°. Condensation shares one row of parameters between
    the real and the synthetic images of a class; student training draws one row per image.

    *Reference:* Zhao and Bilen 2021, Dataset Condensation with Differentiable Siamese Augmentation, arXiv 2102.08259,
    section 3; ``"I"`` is how Kim et al. 2022 (IDC), arXiv 2205.14959, use it, in their code.

    *Differs from the authors' code:* parameters come from a keyed generator and are explicit values instead of the
    state of the global one; a rotation of an image that is not square stays a rotation.

    Args:
        strategy: groups joined by underscores, a selection of ``color_crop_cutout_flip_scale_rotate``; a single one
            applies just that.
        mode: ``"S"`` (one group per call), ``"M"`` (all groups) or ``"I"`` (all, but one of those that move pixels).

    Raises:
        InputError: an unknown group or mode.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2021dsa",)

    strategy: str = "color_crop_cutout_flip_scale_rotate"
    mode: Literal["S", "M", "I"] = "S"

    def __post_init__(self) -> None:
        for group in self.groups:
            if group not in TRANSFORMS:
                raise InputError("augmentation strategy " + unknown("group", group, TRANSFORMS))
        if self.mode not in ("S", "M", "I"):
            raise InputError(
                f'augmentation mode "{self.mode}": give "S" (one group per call), "M" (all groups) or "I" (all, but '
                "only one of crop, scale and rotate)."
            )

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of the strategy, in order."""
        return tuple(self.strategy.split("_"))

    def for_data(self, spec: DataSpec) -> Self:
        """Without ``flip`` where a mirrored image changes its meaning (``spec.mirror`` is False).

        Raises:
            InputError: nothing but flip was in the strategy.
        """
        if spec.mirror or "flip" not in self.groups:
            return self
        kept = "_".join(group for group in self.groups if group != "flip")
        if not kept:
            raise InputError(f'{spec.name}: its images must not be mirrored, and the strategy is "flip" alone.')
        return replace(self, strategy=kept)

    def draw(self, num: int, image_shape: Sequence[int], rng: torch.Generator, *, shared: bool) -> list[AugmentDraw]:
        """Parameters for ``num`` images ``(c, h, w)``: one row in all if ``shared``, else one row per image."""
        rows = 1 if shared else num
        groups = self.groups
        optional = groups if self.mode == "S" else [each for each in groups if self.mode == "I" and each in MOVES]
        if optional:
            picked = optional[int(torch.randint(len(optional), (1,), generator=rng))]
            groups = tuple(each for each in groups if each == picked or each not in optional)
        return [AugmentDraw(group, _draw_group(group, rows, image_shape, rng)) for group in groups]

    def apply(self, x: Tensor, draws: Sequence[AugmentDraw], spec: DataSpec) -> Tensor:
        """Images ``(n, c, h, w)``, nominally [0, 1], transformed in standardised space; same shape and type.

        Raises:
            InputError: parameters of neither one row nor n rows.
        """
        return _apply(x, draws, spec)


def per_image(augment: Augment, spec: DataSpec) -> Callable[[Tensor, torch.Generator], Tensor]:
    """What a trainer applies to a mini-batch ``(n, c, h, w)``: one draw of the augmentation per image."""

    def apply(x: Tensor, rng: torch.Generator) -> Tensor:
        return augment.apply(x, augment.draw(len(x), tuple(x.shape[1:]), rng, shared=False), spec)

    return apply


def dump(draws: Sequence[AugmentDraw]) -> list[dict[str, Any]]:
    """Draws as JSON-able lists and numbers; ``load`` gives back equal draws, bit for bit."""
    return [{"op": op, "params": {name: value.tolist() for name, value in params.items()}} for op, params in draws]


def load(stored: Sequence[dict[str, Any]]) -> list[AugmentDraw]:
    """Draws from what ``dump`` made.

    Raises:
        BundleError: an unknown transform, or parameters that are not its own.
    """
    draws = []
    for entry in stored:
        op, params = entry.get("op", ""), entry.get("params", {})
        if op not in _DTYPES:
            raise BundleError("stored augmentation " + unknown("transform", str(op), _DTYPES))
        if set(params) != set(_DTYPES[op]):
            raise BundleError(f'stored augmentation "{op}" has {sorted(params)}; it needs {sorted(_DTYPES[op])}.')
        draws.append(AugmentDraw(op, {k: torch.tensor(params[k], dtype=dtype) for k, dtype in _DTYPES[op].items()}))
    return draws


def _apply(x: Tensor, draws: Sequence[AugmentDraw], spec: DataSpec) -> Tensor:
    if not draws:
        return x
    for op, params in draws:
        rows = {len(value) for value in params.values()}
        if len(rows) != 1 or not rows <= {1, len(x)}:
            raise InputError(
                f'augmentation "{op}" has parameters for {sorted(rows)} images and was given {len(x)}. '
                "Draw for this batch, or draw shared parameters."
            )
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    mean = torch.tensor(spec.mean, dtype=dtype).view(-1, 1, 1).to(x.device, non_blocking=True)
    std = torch.tensor(spec.std, dtype=dtype).view(-1, 1, 1).to(x.device, non_blocking=True)
    # Autocast would round the sampling grids to bf16: both sides of a comparison must see the same transform.
    with torch.autocast(x.device.type, enabled=False):
        out = (x.to(dtype) - mean) / std
        for op, params in draws:
            out = TRANSFORMS[op](out, params)
        return (out * std + mean).to(x.dtype)


_DTYPES: dict[str, dict[str, torch.dtype]] = {
    "color": {"brightness": torch.float32, "saturation": torch.float32, "contrast": torch.float32},
    "crop": {"down": torch.int64, "right": torch.int64},
    "cutout": {"row": torch.int64, "col": torch.int64, "height": torch.int64, "width": torch.int64},
    "flip": {"flip": torch.int64},
    "scale": {"across": torch.float32, "down": torch.float32},
    "rotate": {"degrees": torch.float32},
}


def _draw_group(group: str, rows: int, image_shape: Sequence[int], rng: torch.Generator) -> dict[str, Tensor]:
    height, width = image_shape[1:]

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, generator=rng)

    def integers(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (rows,), generator=rng)

    def share(side: int, part: float) -> int:
        return int(part * side + 0.5)

    if group == "color":
        names = {"brightness": (-0.5, 0.5), "saturation": (0.0, 2.0), "contrast": (0.5, 1.5)}
        return {name: between(*limits) for name, limits in names.items()}
    if group == "crop":
        down, right = share(height, MAX_SHIFT), share(width, MAX_SHIFT)
        return {"down": integers(-down, down), "right": integers(-right, right)}
    if group == "cutout":
        tall, wide = share(height, CUTOUT_SIDE), share(width, CUTOUT_SIDE)
        row, col = integers(0, height - tall % 2), integers(0, width - wide % 2)
        return {"row": row, "col": col, "height": torch.full((rows,), tall), "width": torch.full((rows,), wide)}
    if group == "flip":
        return {"flip": integers(0, 1)}
    if group == "scale":
        return {"across": between(1 / MAX_SCALE, MAX_SCALE), "down": between(1 / MAX_SCALE, MAX_SCALE)}
    return {"degrees": between(-MAX_DEGREES, MAX_DEGREES)}


AUGMENTS: dict[str, type[DSA] | type[NoAugment]] = {"dsa": DSA, "none": NoAugment}
