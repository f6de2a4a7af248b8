"""The condensed set as numbers: latents grouped by class, their labels and weights, in fp32, fp16, int8 or int4."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
STORAGES = tuple(BITS)
LEVELS = {"int8": 127, "int4": 7}
"""Whole steps either side of zero."""
# A list, as diffusers wants it: loading with a smaller dtype must not round what was learned.
KEPT = ["z", "codes", "scales", "soft", "weight"]


def row_bytes(storage: str, shapes: Mapping[str, Sequence[int]]) -> int:
    """Bytes of one stored latent; int4 fills the last byte of each key."""
    return sum(math.ceil(math.prod(shape) * BITS[storage] / 8) for shape in shapes.values())


def _rounded(value: Tensor, step: Tensor, levels: int) -> Tensor:
    return (value / step).round().clamp(-levels, levels)


def _packed(steps: Tensor) -> Tensor:
    """Whole numbers ``(s, n)`` in [-7, 7] as bytes ``(s, ceil(n / 2))``."""
    halves = F.pad((steps + 8).to(torch.uint8), (0, steps.shape[1] % 2))
    return halves[:, ::2] << 4 | halves[:, 1::2]


def _unpacked(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Whole numbers ``(s, *shape)`` of what ``_packed`` made."""
    halves = torch.stack([packed >> 4, packed & 15], dim=2).flatten(1)[:, : math.prod(shape)]
    return (halves.to(torch.int8) - 8).reshape(len(packed), *shape)


class LatentBank(ModelMixin, ConfigMixin):
    """What is learned: one latent per stored row, rows grouped by class, every prefix of a class usable on its own.

    In ``"fp32"`` the latents are the parameters ``z[name]``; the others keep frozen buffers ``codes.<name>``. With int8
    and int4, z ≈ scale_c · q for rows of class c, q in [-127, 127] or [-7, 7]: one fp32 scale per class and key. int4
    packs the numbers of a row two to a byte, the first one high, as q + 8.

    Args:
        shapes: shape of each latent key for one row, for instance ``{"z": [64]}``.
        counts: number of stored rows of each class, k entries; they may differ, their sum s is at least one.
        storage: ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int4"``.
        soft_labels: keep a distribution over classes per row instead of the row's class.
        weighted: keep one weight per row.

    Raises:
        ValueError: empty shapes or counts, a negative count, an unknown storage.
    """

    config_name: Any = "config.json"
    _keep_in_fp32_modules: Any = KEPT

    @register_to_config
    def __init__(
        self,
        shapes: dict[str, list[int]],
        counts: list[int],
        storage: str = "fp32",
        soft_labels: bool = False,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        if not shapes or not counts or min(counts) < 0 or sum(counts) < 1:
            raise ValueError(f"a bank needs a latent key and a row: shapes = {shapes}, counts = {counts}")
        if storage not in STORAGES:
            raise ValueError(f'storage = "{storage}": known are {", ".join(STORAGES)}')
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.counts = tuple(int(count) for count in counts)
        self.storage = storage
        rows, classes = sum(self.counts), len(self.counts)
        owner = torch.arange(classes).repeat_interleave(torch.tensor(self.counts))
        self.register_buffer("owner", owner, persistent=False)
        self.z = nn.ParameterDict()
        self.codes = nn.Module()
        self.scales = nn.Module()
        for name, shape in self.shapes.items():
            if storage == "fp32":
                self.z[name] = nn.Parameter(torch.zeros(rows, *shape))
            elif storage == "int4":
                self.codes.register_buffer(name, _packed(torch.zeros(rows, math.prod(shape))))
            else:
                dtype = torch.float16 if storage == "fp16" else torch.int8
                self.codes.register_buffer(name, torch.zeros(rows, *shape, dtype=dtype))
            if storage in LEVELS:
                self.scales.register_buffer(name, torch.ones(classes))
        self._add_row("soft", (rows, classes), soft_labels)
        self._add_row("weight", (rows,), weighted)

    def _add_row(self, name: str, shape: tuple[int, ...], present: bool) -> None:
        if not present:
            self.register_parameter(name, None)
        elif self.storage == "fp32":
            self.register_parameter(name, nn.Parameter(torch.ones(shape)))
        else:
            self.register_buffer(name, torch.ones(shape, dtype=torch.float16))

    @classmethod
    def of(
        cls, latents: Mapping[str, Tensor], counts: Sequence[int], *, y: Tensor | None = None, w: Tensor | None = None
    ) -> "LatentBank":
        """A learnable bank that starts at ``latents`` ``(s, *shape)``, rows already grouped by class.

        Raises:
            ValueError: a latent, ``y`` ``(s, k)`` or ``w`` ``(s,)`` does not have one row per count.
        """
        shapes = {name: list(value.shape[1:]) for name, value in latents.items()}
        bank: LatentBank = cls(shapes, [int(c) for c in counts], soft_labels=y is not None, weighted=w is not None)
        wanted = {**latents, **({} if y is None else {"y": y}), **({} if w is None else {"w": w})}
        wrong = {name: len(value) for name, value in wanted.items() if len(value) != bank.num_rows}
        if wrong:
            raise ValueError(f"{wrong} rows were given where counts {list(bank.counts)} ask for {bank.num_rows}")
        bank._fill(latents, y, w)
        return bank

    @torch.no_grad()
    def _fill(self, latents: Mapping[str, Tensor], y: Tensor | None, w: Tensor | None) -> None:
        for name, value in latents.items():
            if self.storage == "fp32":
                self.z[name].copy_(value)
            elif self.storage == "fp16":
                getattr(self.codes, name).copy_(value)
            else:
                flat = value.reshape(self.num_rows, -1)
                scale = self._class_scales(flat)
                getattr(self.scales, name).copy_(scale)
                steps = _rounded(flat, scale[self.owner, None], LEVELS[self.storage])
                stored = _packed(steps) if self.storage == "int4" else steps.reshape(value.shape)
                getattr(self.codes, name).copy_(stored)
        if y is not None:
            self.soft.copy_(y)
        if w is not None:
            self.weight.copy_(w)

    def _class_scales(self, value: Tensor) -> Tensor:
        """Step of each class ``(k,)`` for numbers ``(s, n)``: its largest is the last level, with int4 no more than so.

        Of few levels some are better spent between the many small numbers than on the few large ones: of 33 shares of
        the largest number, from half on, that with the least squared error.
        """
        peak = value.new_zeros(self.num_classes).scatter_reduce(0, self.owner, value.abs().amax(1), "amax")
        whole = torch.where(peak > 0, peak / LEVELS[self.storage], torch.ones_like(peak)).float()
        if self.storage != "int4":
            return whole
        best, least = whole, whole.new_full((self.num_classes,), math.inf)
        for share in torch.linspace(1, 0.5, 33).tolist():
            step = share * whole
            error = step[self.owner, None] * _rounded(value, step[self.owner, None], LEVELS["int4"]) - value
            of_class = torch.zeros_like(step).index_add(0, self.owner, error.float().square().sum(1))
            best, least = torch.where(of_class < least, step, best), torch.minimum(of_class, least)
        return best

    @property
    def dtype(self) -> torch.dtype:
        """What latents come in, whatever they are stored in: a pipeline asks before it runs on a CPU."""
        return torch.float64 if any(value.dtype == torch.float64 for value in self.z.values()) else torch.float32

    @property
    def num_rows(self) -> int:
        """Number of stored rows s."""
        return sum(self.counts)

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return len(self.counts)

    @property
    def y(self) -> Tensor:
        """Targets ``(s, k)``: the stored soft labels, else one-hot rows."""
        if self.soft is not None:
            soft: Tensor = self.soft
            return soft if soft.dtype == torch.float64 else soft.float()
        return F.one_hot(self.owner, self.num_classes).float()

    @property
    def w(self) -> Tensor | None:
        """Weights ``(s,)``, or None where all rows weigh the same."""
        return None if self.weight is None else self.weight.float()

    def rows(self, classes: Sequence[int] | None = None, limit: int | None = None) -> Tensor:
        """Ids of stored rows, int64, class after class in the order asked for; at most the first ``limit`` of each.

        Raises:
            ValueError: a class outside [0, k) or a limit below one.
        """
        asked = range(self.num_classes) if classes is None else [int(c) for c in classes]
        if any(not 0 <= c < self.num_classes for c in asked) or (limit is not None and limit < 1):
            raise ValueError(f"classes = {classes}, limit = {limit}: classes lie in [0, {self.num_classes}), limit > 0")
        starts = [sum(self.counts[:c]) for c in range(self.num_classes)]
        take = [self.counts[c] if limit is None else min(limit, self.counts[c]) for c in asked]
        ids = [row for c, num in zip(asked, take, strict=True) for row in range(starts[c], starts[c] + num)]
        return torch.tensor(ids, dtype=torch.int64, device=self.owner.device)

    def prefix(self, num: int) -> "LatentBank":
        """A new bank holding the first ``num`` rows of each class (all of a class that has fewer), stored as they are.

        Raises:
            ValueError: a number below one.
        """
        ids = self.rows(limit=num)
        counts = [min(num, count) for count in self.counts]
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        new: LatentBank = LatentBank(shapes, counts, self.storage, self.soft is not None, self.weight is not None)
        state = self.state_dict().items()
        new.load_state_dict({name: value if name.startswith("scales.") else value[ids] for name, value in state})
        new.to(self.owner.device)
        return new

    def latents(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Latents ``(n, *shape)`` of the given row ids (all if None), dequantised; float32 unless ``z`` is float64."""
        ids = torch.arange(self.num_rows, device=self.owner.device) if rows is None else rows.to(self.owner.device)
        if self.storage == "fp32":
            return {name: self.z[name].index_select(0, ids) for name in self.shapes}
        out = {name: getattr(self.codes, name).index_select(0, ids) for name in self.shapes}
        if self.storage == "int4":
            out = {name: _unpacked(code, self.shapes[name]) for name, code in out.items()}
        out = {name: code.float() for name, code in out.items()}
        if self.storage in LEVELS:
            owner = self.owner[ids]
            for name, value in out.items():
                out[name] = value * getattr(self.scales, name)[owner].reshape(-1, *[1] * (value.ndim - 1))
        return out

    def quantise(self, storage: str) -> "LatentBank":
        """A new bank holding the same rows in another storage; int8 rounds to 255 symmetric levels, int4 to 15."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        new: LatentBank = LatentBank(shapes, list(self.counts), storage, self.soft is not None, self.weight is not None)
        new.to(self.owner.device)
        new._fill(self.latents(), self.soft, self.weight)
        return new

    def payload_bytes(self) -> dict[str, int]:
        """Bytes as stored, without file overhead: ``latents``, ``scales``, ``labels``.

        Hard labels cost one 4-byte count per class; soft labels and weights cost their tensors.
        """
        stored = [self.z[name] if self.storage == "fp32" else getattr(self.codes, name) for name in self.shapes]
        per_row = [value for value in (self.soft, self.weight) if value is not None]
        return {
            "latents": sum(value.numel() * value.element_size() for value in stored),
            "scales": sum(value.numel() * value.element_size() for value in self.scales.buffers()),
            "labels": 4 * self.num_classes + sum(value.numel() * value.element_size() for value in per_row),
        }
