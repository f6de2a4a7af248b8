"""The kinds of parts a recipe can name: where their tables are, and how one is made from its name and options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from latentdc.data.augment import AUGMENTS
from latentdc.decoders import BASES, FORMATIONS
from latentdc.discrepancies import DISCREPANCIES
from latentdc.errors import InputError, RecipeError, unknown
from latentdc.initialise import STARTS
from latentdc.recipe.spec import Part
from latentdc.representations import REPRESENTATIONS
from latentdc.types import DataSpec

_SHAPE = "image_shape"


class Kind(NamedTuple):
    """A kind of part."""

    name: str
    table: Mapping[str, type[Any]]


KINDS: dict[str, Kind] = {
    "objective.see": Kind("representation", REPRESENTATIONS),
    "objective.by": Kind("discrepancy", DISCREPANCIES),
    "augment": Kind("augmentation", AUGMENTS),
    "formation": Kind("formation", FORMATIONS),
    "init": Kind("start", STARTS),
    "decoder": Kind("decoder with options", BASES),
}
"""By the recipe key under which a part of the kind stands."""


def part_class(where: str, part: Part) -> type[Any]:
    """The class a part's name stands for.

    Raises:
        RecipeError: no such part; the message names the nearest.
    """
    kind = KINDS[where]
    if part.kind not in kind.table:
        raise RecipeError(f"{where} = {unknown(kind.name, part.kind, kind.table)}")
    return kind.table[part.kind]


def make_part(where: str, part: Part, spec: DataSpec | None = None) -> Any:
    """The part itself.

    Args:
        where: recipe key of its kind.
        part: name and options.
        spec: the data; it fills in those of ``image_shape``, ``mean``, ``std`` and ``num_classes`` that the part
            asks for and the recipe leaves out.

    Raises:
        RecipeError: an unknown name or option, or a value the part refuses.
    """
    cls = _checked_names(where, part)
    known = option_names(cls)
    facts = {} if spec is None else {name: value for name, value in _facts(spec).items() if name in known}
    try:
        return cls(**{**facts, **part.options})
    except RecipeError:
        raise
    except (InputError, ValueError, TypeError) as error:
        raise RecipeError(f"{where} ({part.kind}): {error}") from error


def check_part(where: str, part: Part) -> None:
    """Refuse a part that could not be made; of one that asks for the data's shape, only the names can be checked."""
    if _SHAPE in option_names(_checked_names(where, part)):
        return
    make_part(where, part)


def _checked_names(where: str, part: Part) -> type[Any]:
    """The part's class, every option known to it."""
    cls = part_class(where, part)
    known = option_names(cls)
    for name in part.options:
        if name not in known:
            raise RecipeError(f"{where}.{name}: {unknown(f'option of {part.kind}', name, known)}")
    return cls


def _facts(spec: DataSpec) -> dict[str, Any]:
    shape, mean, std = list(spec.image_shape), list(spec.mean), list(spec.std)
    return {_SHAPE: shape, "mean": mean, "std": std, "num_classes": spec.num_classes}


def option_names(cls: type[Any]) -> list[str]:
    """Options of a part: the fields of a dataclass, or the arguments of its constructor."""
    if dataclasses.is_dataclass(cls):
        return [each.name for each in dataclasses.fields(cls) if each.init]
    return [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "args", "kwargs")]
