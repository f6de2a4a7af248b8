"""The kinds of parts a recipe can name: where their tables are, and how one is made from its name and options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

from latentdc.data.augment import AUGMENTS
from latentdc.decoders import FORMATIONS
from latentdc.discrepancies import DISCREPANCIES
from latentdc.errors import InputError, RecipeError, unknown
from latentdc.recipe.spec import Part
from latentdc.recipe.values import plain_value
from latentdc.representations import REPRESENTATIONS


class Kind(NamedTuple):
    """A kind of part."""

    name: str
    table: Mapping[str, type[Any]]


KINDS: dict[str, Kind] = {
    "objective.see": Kind("representation", REPRESENTATIONS),
    "objective.by": Kind("discrepancy", DISCREPANCIES),
    "augment": Kind("augmentation", AUGMENTS),
    "formation": Kind("formation", FORMATIONS),
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


def make_part(where: str, part: Part) -> Any:
    """The part itself.

    Raises:
        RecipeError: an unknown name or option, or a value the part refuses.
    """
    cls = part_class(where, part)
    known = options(cls)
    for name in part.options:
        if name not in known:
            raise RecipeError(f"{where}.{name}: {unknown(f'option of {part.kind}', name, known)}")
    given = {name: plain_value(known[name], value, f"{where}.{name}") for name, value in part.options.items()}
    try:
        return cls(**given)
    except RecipeError:
        raise
    except (InputError, ValueError, TypeError) as error:
        raise RecipeError(f"{where} ({part.kind}): {error}") from error


def check_part(where: str, part: Part) -> None:
    """Refuse a part that could not be made."""
    make_part(where, part)


def options(cls: type[Any]) -> dict[str, Any]:
    """Options of a part and their type hints: the fields of a dataclass, or the arguments of its constructor."""
    if dataclasses.is_dataclass(cls):
        hints, names = get_type_hints(cls), [each.name for each in dataclasses.fields(cls) if each.init]
    else:
        hints, names = get_type_hints(cls.__init__), list(inspect.signature(cls.__init__).parameters)
    return {name: hints.get(name, Any) for name in names if name not in ("self", "args", "kwargs")}
