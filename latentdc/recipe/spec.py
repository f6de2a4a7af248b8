"""What a recipe says: frozen dataclasses, one field per key of the TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from latentdc.condense import Optim
from latentdc.errors import RecipeError, unknown
from latentdc.initialise import STATISTICS
from latentdc.portable.bank import LEVELS, STORAGES, row_bytes

SOURCES = ("minibatches", "sketch")
PRECISIONS = ("fp32", "bf16")
COUNT_BYTES = 4
"""Hard labels are stored as one count per class."""
SCALE_BYTES = 4
"""int8 and int4 keep one scale per class and latent key."""


@dataclass(frozen=True)
class Part:
    """A part by its name in the kind's table, with the options that differ from the part's own defaults."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TermSpec:
    """One match: what is looked at (``see``), how it is compared (``by``), and how much it counts.

    ``weights`` holds one number for each tensor that ``see`` shows, such as the depths of ``features``, or a single one
    for all of them; 1 if left out.
    """

    see: Part = Part("features")
    by: Part = Part("mean")
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class ObjectiveSpec(TermSpec):
    """The match, and what is asked of the images besides.

    ``plus`` are further matches that are added to it. ``penalties`` are added as well, each with a ``weight`` of its
    own: names of ``latentdc.objectives.PENALTIES``. ``kind`` says how all matches take the set: whole, or each prefix.
    """

    plus: tuple[TermSpec, ...] = ()
    penalties: tuple[Part, ...] = ()
    kind: str = "match"

    @property
    def terms(self) -> tuple[TermSpec, ...]:
        """All matches."""
        return (self, *self.plus)


@dataclass(frozen=True)
class SourceSpec:
    """The real side.

    ``minibatches``: at every step ``num_per_class`` real images of each class, drawn by ``sampler``, and a network of
    ``pool``, which trains its networks under ``train_augment`` and mixes their mini-batches with probability
    ``cut_mix``. ``sketch``: the whole real set, once, under ``num_pairs`` fixed (network, augmentation) pairs;
    ``images_per_pair`` bounds the images of each class that a pair sees. ``landmarks`` weighted points stand for those
    of a class where the discrepancy needs points.
    """

    kind: str = "minibatches"
    num_per_class: int = 256
    sampler: Part = Part("uniform")
    pool: Part = Part("fresh")
    train_augment: Part = Part("none")
    cut_mix: float = 0.0
    num_pairs: int = 60
    images_per_pair: int | None = None
    landmarks: int | None = None
    arch: str = "convnet"
    width: int | None = None
    batch_size: int = 500


@dataclass(frozen=True)
class Recipe:
    """A method as a composition of parts, and its budget.

    Raises:
        RecipeError: not exactly one of ``images_per_class`` and ``bytes_per_class``, or a value out of range.
    """

    name: str = "unnamed"
    title: str = ""
    cite: tuple[str, ...] = ()
    """Works the composition as a whole follows; those of the parts are added by ``cite``."""
    decoder: str | Part = "pixels"
    """``pixels``, ``default`` (the shipped checkpoint that fits the data best), ``gan``, ``autoencoder`` or
    ``diffusion`` (the shipped one of that kind), a shipped name, a decoder folder; with settings a part, such as
    ``{ kind = "gan", space = "w" }``. Or a part that is stored with the set: ``{ kind = "memory", num_bases = 16 }``.
    """
    formation: Part | None = None
    init: Part = Part("prior")
    """Where the latents start: a name of ``latentdc.initialise.STARTS``, with its options."""
    images_per_class: int | None = None
    """Stored rows of each class; a formation turns each row into more training images."""
    bytes_per_class: int | None = None
    """As many rows as fit, scales, labels and what the classes share included."""
    storage: str = "fp32"
    """How the finished latents are stored: ``fp32``, ``fp16``, ``int8`` or ``int4``."""
    labels: Part = Part("hard")
    """``hard``, what ``{ kind = "teacher", temperature = 4.0 }`` says of the finished set, or ``learned`` with it."""
    objective: ObjectiveSpec = field(default_factory=ObjectiveSpec)
    augment: Part = Part("dsa")
    source: SourceSpec = field(default_factory=SourceSpec)
    optim: Optim = field(default_factory=Optim)
    steps: int = 1000
    """0 makes the start the result: no network, no sketch, no real image beyond what the start looks at."""
    seed: int = 0
    chunk: int | None = None
    """Rows decoded at once; all of them if left out."""
    precision: str = "fp32"
    compile: bool = False
    """Compile networks and light decoders; changes how fast a run is, not what it makes."""

    def __post_init__(self) -> None:
        if (self.images_per_class is None) == (self.bytes_per_class is None):
            raise RecipeError(
                f"images_per_class = {self.images_per_class}, bytes_per_class = {self.bytes_per_class}: "
                "give exactly one."
            )
        for where, value, known in (
            ("storage", self.storage, STORAGES),
            ("precision", self.precision, PRECISIONS),
            ("source.kind", self.source.kind, SOURCES),
        ):
            if value not in known:
                raise RecipeError(f"{where} = {unknown(where.removesuffix('.kind'), value, known)}")
        for where, number in {
            "images_per_class": self.images_per_class,
            "bytes_per_class": self.bytes_per_class,
            "chunk": self.chunk,
            "source.num_per_class": self.source.num_per_class,
            "source.num_pairs": self.source.num_pairs,
            "source.images_per_pair": self.source.images_per_pair,
            "source.landmarks": self.source.landmarks,
            "source.width": self.source.width,
            "source.batch_size": self.source.batch_size,
        }.items():
            if number is not None and number < 1:
                raise RecipeError(f"{where} = {number}: give at least 1.")
        if not 0 <= self.source.cut_mix <= 1:
            raise RecipeError(f"source.cut_mix = {self.source.cut_mix}: give a probability, from 0 (never) to 1.")
        if self.steps < 0:
            raise RecipeError(f"steps = {self.steps}: give at least 1, or 0 to keep the start as it is.")
        if self.init.kind == STATISTICS:
            self._check_distribution()

    def _check_distribution(self) -> None:
        for wrong, message in (
            (self.steps > 0, f"steps = {self.steps}: a distribution is fitted, not optimised; give steps = 0."),
            (self.storage in LEVELS, f'storage = "{self.storage}": a distribution is stored as fp16 or fp32.'),
            (self.labels.kind != "hard", f'labels = "{self.labels.kind}": a distribution has no rows to label.'),
            (
                self.images_per_class is None,
                f"bytes_per_class = {self.bytes_per_class}: a distribution takes the same bytes for any number of "
                "images; give images_per_class, how many are drawn where no number is asked for.",
            ),
        ):
            if wrong:
                raise RecipeError(f'init = "{STATISTICS}", {message}')

    def rows_per_class(
        self, latent_shapes: Mapping[str, Sequence[int]], shared: float = 0, *, num_classes: int = 0
    ) -> int:
        """Stored rows of each class under the budget.

        ``b = n · Σ_key |z_key| · item + scales + label + shared``; 784 bytes, int8 and a z of 16 give n = 48
        (776 bytes).

        Args:
            latent_shapes: shape of each latent key for one row.
            shared: a class's share of what formation and decoder add to the set, in bytes.
            num_classes: k, which soft labels take a number each of, in every row.

        Raises:
            RecipeError: the budget is below one row.
        """
        if self.images_per_class is not None:
            return self.images_per_class
        assert self.bytes_per_class is not None
        row, fixed = self._row_bytes(latent_shapes, num_classes)
        rows = int((self.bytes_per_class - fixed - shared) // row)
        if rows < 1:
            below = STORAGES[STORAGES.index(self.storage) + 1 :]
            smaller = f"a smaller storage ({', '.join(below)}), " if below else ""
            more = f", and {shared:,.1f} of what the classes share (see [formation], [decoder])" if shared else ""
            raise RecipeError(
                f"bytes_per_class = {self.bytes_per_class}: one row of this decoder takes {row + fixed} bytes in "
                f"{self.storage} (with scale and label){more}. Give at least that, {smaller}or a decoder with a "
                "smaller latent."
            )
        return rows

    def stored_bytes_per_class(
        self, latent_shapes: Mapping[str, Sequence[int]], shared: float = 0, *, num_classes: int = 0
    ) -> float:
        """Bytes of one class as stored: latents, scales, label and its share of what all classes share."""
        row, fixed = self._row_bytes(latent_shapes, num_classes)
        if self.init.kind == STATISTICS:  # a mean and a deviation; a count and a seed
            return 2 * (row + fixed) + shared
        return self.rows_per_class(latent_shapes, shared, num_classes=num_classes) * row + fixed + shared

    def _row_bytes(self, latent_shapes: Mapping[str, Sequence[int]], num_classes: int) -> tuple[int, int]:
        row = row_bytes(self.storage, latent_shapes)
        if self.labels.kind != "hard":
            row += num_classes * (4 if self.storage == "fp32" else 2)
        return row, COUNT_BYTES + (SCALE_BYTES * len(latent_shapes) if self.storage in LEVELS else 0)

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, in the order of the fields; None where a key is not set."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Dotted keys and JSON values, for manifests and for telling two recipes apart."""
        return flatten(self.as_dict())


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; tuples become lists."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
