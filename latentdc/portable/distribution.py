"""The condensed set as a distribution: mean and deviation of each class's latents, and as many draws as are asked."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
# A list, as diffusers wants it: loading with a smaller dtype must not round what was stored.
KEPT = ["mean", "std"]


class DistributionBank(ModelMixin, ConfigMixin):
    """Per class a diagonal Gaussian over latents; row j of class c is a draw that only (seed, c, j) decides.

        z_cj = μ_c + σ_c ⊙ ε(seed_c, c, j),   ε standard normal

    So any number of rows can be asked for, a longer set begins with the shorter one, and the stored bytes do not grow.
    Row j of class c has the id ``j · k + c``, whatever is asked for.

    Args:
        shapes: shape of each latent key for one row.
        counts: rows of each class that are decoded where no number is asked for, k entries of at least one.
        seeds: one seed per class; None for zeros.
        storage: ``"fp16"`` or ``"fp32"`` for μ and σ.

    Raises:
        ValueError: no shape, a count below one, not one seed per class, or an unknown storage.

    *Reference*: Zhao et al. 2025, "Taming Diffusion for Dataset Distillation with High Representativeness",
    arXiv 2505.18399, §4.2.
    """

    config_name: Any = "config.json"
    _keep_in_fp32_modules: Any = KEPT
    endless = True
    """More rows than ``counts`` may be asked for."""
    soft = None
    weight = None
    w = None

    @register_to_config
    def __init__(
        self,
        shapes: dict[str, list[int]],
        counts: list[int],
        seeds: list[int] | None = None,
        storage: str = "fp16",
    ) -> None:
        super().__init__()
        if not shapes or not counts or min(counts) < 1:
            raise ValueError(f"a distribution needs a latent key and counts of 1 or more: {shapes}, counts = {counts}")
        if storage not in DTYPES:
            raise ValueError(f'storage = "{storage}": known for a distribution are {", ".join(DTYPES)}')
        if seeds is not None and len(seeds) != len(counts):
            raise ValueError(f"{len(seeds)} seeds for {len(counts)} classes: give one per class")
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.counts = tuple(int(count) for count in counts)
        self.seeds = tuple(int(seed) for seed in seeds or [0] * len(counts))
        self.storage = storage
        self.mean, self.std = nn.Module(), nn.Module()
        for name, shape in self.shapes.items():
            for part in (self.mean, self.std):
                part.register_buffer(name, torch.zeros(len(counts), *shape, dtype=DTYPES[storage]))
        self.register_buffer("place", torch.zeros(0), persistent=False)  # Only to know the device.

    @classmethod
    def of(
        cls,
        mean: Mapping[str, Tensor],
        std: Mapping[str, Tensor],
        counts: Sequence[int],
        *,
        seeds: Sequence[int] | None = None,
        storage: str = "fp16",
    ) -> "DistributionBank":
        """A bank of statistics ``(k, *shape)`` by latent key.

        Raises:
            ValueError: not one mean and deviation per class, a negative deviation, or a number that the storage cannot
                hold.
        """
        shapes = {name: list(value.shape[1:]) for name, value in mean.items()}
        bank: DistributionBank = cls(shapes, [int(c) for c in counts], None if seeds is None else list(seeds), storage)
        for name, value in mean.items():
            if value.shape != std[name].shape or len(value) != len(bank.counts) or bool((std[name] < 0).any()):
                raise ValueError(
                    f"{name}: give one mean and one deviation of 0 or more for each of {len(counts)} classes"
                )
            getattr(bank.mean, name).copy_(value)
            getattr(bank.std, name).copy_(std[name])
            if not all(bool(getattr(part, name).isfinite().all()) for part in (bank.mean, bank.std)):
                raise ValueError(f'{name}: a statistic is too large for {storage}; store it as "fp32"')
        return bank

    @property
    def num_rows(self) -> int:
        """Rows that are decoded where no number is asked for."""
        return sum(self.counts)

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        return len(self.counts)

    @property
    def owner(self) -> "Classes":
        """Class of any row id: ``owner[rows]``."""
        return Classes(self.num_classes, self.place.device)

    @property
    def y(self) -> "OneHot":
        """One-hot target of any row id: ``y[rows]`` ``(n, k)``."""
        return OneHot(self.num_classes, self.place.device)

    def rows(self, classes: Sequence[int] | None = None, limit: int | None = None) -> Tensor:
        """Ids of rows, int64, class after class in the order asked for: ``limit`` of each, or ``counts``.

        Raises:
            ValueError: a class outside [0, k) or a limit below one.
        """
        asked = range(self.num_classes) if classes is None else [int(c) for c in classes]
        if any(not 0 <= c < self.num_classes for c in asked) or (limit is not None and limit < 1):
            raise ValueError(f"classes = {classes}, limit = {limit}: classes lie in [0, {self.num_classes}), limit > 0")
        ids = [j * self.num_classes + c for c in asked for j in range(self.counts[c] if limit is None else limit)]
        return torch.tensor(ids, dtype=torch.int64, device=self.place.device)

    def latents(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Latents ``(n, *shape)`` of the given row ids (those of ``counts`` if None), float32."""
        ids = self.rows() if rows is None else rows
        device = self.place.device
        owner = ids.to(device) % self.num_classes
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        places = [divmod(int(row), self.num_classes) for row in ids.tolist()]
        drawn = [noise_of(self.seeds[cls], cls, place, sum(sizes)) for place, cls in places]
        noise = torch.stack(drawn) if drawn else torch.zeros(0, sum(sizes))
        out = {}
        for (name, shape), part in zip(self.shapes.items(), torch.split(noise, sizes, dim=1), strict=True):
            mean, std = getattr(self.mean, name)[owner].float(), getattr(self.std, name)[owner].float()
            out[name] = mean + std * part.reshape(-1, *shape).to(device)
        return out

    def drawing(self, num: int) -> "DistributionBank":
        """The same distribution, of which ``num`` rows of each class are decoded where no number is asked for."""
        means, stds = ({name: getattr(p, name) for name in self.shapes} for p in (self.mean, self.std))
        counts = [num] * self.num_classes
        new: DistributionBank = DistributionBank.of(means, stds, counts, seeds=self.seeds, storage=self.storage)
        new.to(self.place.device)
        return new

    def quantise(self, storage: str) -> "DistributionBank":
        """The same distribution with its statistics in another storage.

        Raises:
            ValueError: neither ``"fp16"`` nor ``"fp32"``.
        """
        means, stds = ({name: getattr(p, name).float() for name in self.shapes} for p in (self.mean, self.std))
        new: DistributionBank = DistributionBank.of(means, stds, self.counts, seeds=self.seeds, storage=storage)
        new.to(self.place.device)
        return new

    def payload_bytes(self) -> dict[str, int]:
        """Bytes as stored, without file overhead: ``latents`` (μ and σ), ``scales`` (none), ``labels``.

        Labels are one 4-byte count and one 4-byte seed per class.
        """
        stored = [getattr(part, name) for part in (self.mean, self.std) for name in self.shapes]
        latents = sum(value.numel() * value.element_size() for value in stored)
        return {"latents": latents, "scales": 0, "labels": 8 * self.num_classes}


def noise_of(seed: int, cls: int, place: int, size: int) -> Tensor:
    """ε(seed, c, j): standard normal numbers ``(size,)`` of row ``place`` of class ``cls``, for all latent keys."""
    digest = hashlib.sha256(f"{seed}/{cls}/{place}".encode()).digest()
    return torch.randn(size, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))


class Classes:
    """A list of classes without end: row id → class."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes, self.device = num_classes, device

    def __getitem__(self, rows: Tensor) -> Tensor:
        return rows.to(self.device) % self.num_classes


class OneHot(Classes):
    """A list of targets without end: row id → one-hot row."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        return F.one_hot(super().__getitem__(rows), self.num_classes).float()
