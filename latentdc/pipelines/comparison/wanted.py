"""What is compared: the file a user writes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, RecipeError, unknown
from latentdc.evaluate.baselines import BASELINES
from latentdc.evaluate.compare import check_students
from latentdc.evaluate.protocols import find_protocol
from latentdc.evaluate.splits import split_data
from latentdc.recipe.toml import from_table

SPLITS = ("held-out", "test")
_FOOTING = ("images_per_class", "bytes_per_class", "steps", "precision", "compile")
"""Keys of recipes that a comparison has of its own."""


@dataclass(frozen=True)
class Comparison:
    """What is compared, and on what footing. Cells are all recipes times all variants, or ``only`` some of these.

    Raises:
        RecipeError: no recipe, not exactly one of ``images_per_class`` and ``bytes_per_class`` or of ``seconds``,
            ``teraflops`` and ``steps``, or a number out of range.
        InputError: an unknown protocol, student, baseline, split, precision or cell.
    """

    recipes: tuple[str, ...]
    """Names of shipped recipes, or TOML files."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"": ()})
    """Settings ``"key=value"`` of each variant by its name; see ``load_recipe``."""
    only: tuple[str, ...] = ()
    """Names of the cells that are run, such as ``"dm-gan"``; empty for all."""
    settings: tuple[str, ...] = ()
    """Settings of all cells."""
    images_per_class: int | None = None
    bytes_per_class: int | None = None
    seconds: float | None = None
    """Condensation of each cell: its steps are measured on this machine, once. Compiling, sketching and networks that
    a pool trains once, when they are first drawn, are left out; the page tells the seconds with these networks."""
    teraflops: float | None = None
    """Or 10^12 floating-point operations of each cell, counted (see ``latentdc.recipe.Flops``): the same steps on every
    machine and beside any other work. Networks that a pool trains once are paid for out of it."""
    steps: int | None = None
    """Or a number of steps, the same for all."""
    protocol: str = "quick"
    seeds: int = 3
    students: tuple[str, ...] = ("convnet",)
    baselines: tuple[str, ...] = ("random-real",)
    splits: tuple[str, ...] = ("test",)
    """What every cell is judged on: ``"test"``, ``"held-out"`` or both. With ``"held-out"`` among them a tenth of the
    training images is kept from condensation and baselines, so that one may choose by it and report the other."""
    precision: str = "fp32"
    compile: bool = False
    """Compile networks and students."""

    def __post_init__(self) -> None:
        find_protocol(self.protocol)
        check_students(self.students, self.precision)
        for what, given, known in (("baseline", self.baselines, BASELINES), ("split", self.splits, SPLITS)):
            for name in given:
                if name not in known:
                    raise InputError(unknown(what, name, known))
        if not self.splits:
            raise RecipeError('comparison: no splits; give ["test"], ["held-out"] or both.')
        if not self.recipes or not self.variants:
            raise RecipeError("a comparison needs at least one recipe and, if it names variants, one of these.")
        known_cells = self._all_cells()
        if len(known_cells) < len(self.recipes) * len(self.variants):
            raise RecipeError(f"comparison: two cells have one name among {', '.join(known_cells)}; rename a file.")
        for name in self.only:
            if name not in known_cells:
                raise InputError(unknown("cell", name, known_cells))
        for name in (*self.variants, *known_cells):
            if name and Path(name).name != name:
                raise RecipeError(f'comparison: "{name}" names files; use letters, digits, "-", "_" and ".".')
        for setting in (each for _, settings in self.cells.values() for each in settings):
            if (key := setting.partition("=")[0].strip()) in _FOOTING:
                raise RecipeError(f'comparison: settings "{setting}": all cells share this; give {key} beside recipes.')
        for names in (("images_per_class", "bytes_per_class"), ("seconds", "teraflops", "steps")):
            if sum(getattr(self, name) is not None for name in names) != 1:
                raise RecipeError(f"comparison: give exactly one of {', '.join(names[:-1])} and {names[-1]}.")
        for name in ("images_per_class", "bytes_per_class", "seconds", "teraflops", "steps", "seeds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"comparison: {name} = {value}: give a positive number.")

    @property
    def cells(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Recipe and settings of each cell that is run, by its name, ``recipe`` or ``recipe-variant``."""
        return {name: cell for name, cell in self._all_cells().items() if not self.only or name in self.only}

    def _all_cells(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        return {
            "-".join(part for part in (Path(recipe).stem, variant) if part): (recipe, (*self.settings, *own))
            for variant, own in self.variants.items()
            for recipe in self.recipes
        }

    def seen(self, data: Data) -> ClassStore:
        """The training images that cells may be condensed from.

        Raises:
            DataError: the data has not what the cells are to be judged on.
        """
        return min((split_data(data.train, data.test, split)[0] for split in self.splits), key=len)

    @staticmethod
    def load(path: str | Path) -> Comparison:
        """A comparison from a TOML file whose keys are the fields above; variants are sections ``[variants]``.

        Raises:
            InputError: no such file, or a name in it is unknown.
            RecipeError: it is no TOML, or a key or value is wrong.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read as a comparison ({error.strerror}).") from error
        except ValueError as error:
            raise RecipeError(f"{path}: not a TOML file: {error}") from error
        found = from_table(Comparison, table, "")
        assert isinstance(found, Comparison)
        return found
