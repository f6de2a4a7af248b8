"""The kinds of parts a recipe can name: where their tables are, and how one is made from its name and options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

from latentdc.data.augment import AUGMENTS, Augment
from latentdc.data.sampling import SAMPLERS, Sampler
from latentdc.decoders import BASES, FORMATIONS
from latentdc.discrepancies import DISCREPANCIES, Discrepancy
from latentdc.errors import InputError, RecipeError, unknown
from latentdc.initialise import STARTS, Start
from latentdc.labels import LABELS, Labels
from latentdc.networks import POOLS, Pool
from latentdc.objectives import OBJECTIVES, PENALTIES, Objective
from latentdc.recipe.spec import Part
from latentdc.recipe.values import plain_value
from latentdc.representations import REPRESENTATIONS, Representation
from latentdc.resources import own_class
from latentdc.types import DataSpec, Decoder, Formation

_SHAPE = "image_shape"


class Kind(NamedTuple):
    """A kind of part."""

    name: str
    table: Mapping[str, type[Any]]
    base: type[Any]
    """What each of the kind is: a base class or a protocol."""
    is_told: bool = True
    """Whether a sketch tells two of the kind apart, by class name and fields: it has to be a dataclass then."""
    made_of: tuple[str, ...] = ()
    """Arguments that are no options but filled in where it is made; a recipe alone cannot make one that has some."""


_POOL = ("arch", "spec", "seed", "width", "trainer")

KINDS: dict[str, Kind] = {
    "objective.kind": Kind("objective", OBJECTIVES, Objective, is_told=False),
    "objective.see": Kind("representation", REPRESENTATIONS, Representation),
    "objective.by": Kind("discrepancy", DISCREPANCIES, Discrepancy),
    "objective.plus.see": Kind("representation", REPRESENTATIONS, Representation),
    "objective.plus.by": Kind("discrepancy", DISCREPANCIES, Discrepancy),
    "objective.penalties": Kind("penalty", PENALTIES, Objective, is_told=False),
    "augment": Kind("augmentation", AUGMENTS, Augment),
    "source.sampler": Kind("sampler", SAMPLERS, Sampler, is_told=False, made_of=("store", "num_per_class")),
    "source.pool": Kind("pool of networks", POOLS, Pool, is_told=False, made_of=_POOL),
    "source.train_augment": Kind("augmentation", AUGMENTS, Augment, is_told=False),
    "formation": Kind("formation", FORMATIONS, Formation, is_told=False),
    "init": Kind("start", STARTS, Start, is_told=False),
    "labels": Kind("kind of labels", LABELS, Labels, is_told=False),
    "decoder": Kind("decoder with options", BASES, Decoder, is_told=False),
}
"""By the recipe key under which a part of the kind stands."""


def is_stored(kind: str) -> bool:
    """Whether a decoder of a recipe is made for the data and stored with the set: one of ours, or a class by its path.

    Any other name is that of a pretrained one.
    """
    module, colon, name = kind.partition(":")
    return kind in BASES or (bool(colon) and all(each.isidentifier() for each in (*module.split("."), name)))


def part_class(where: str, part: Part) -> type[Any]:
    """The class a part's name stands for: a name of the kind's table, or ``"package.module:Class"``.

    Raises:
        RecipeError: no such part; the message names the nearest.
    """
    kind = KINDS[where]
    if part.kind in kind.table:
        return kind.table[part.kind]
    if ":" not in part.kind:
        raise RecipeError(
            f'{where} = {unknown(kind.name, part.kind, kind.table)} One of your own: "package.module:Class".'
        )
    try:
        return own_class(part.kind)
    except InputError as error:
        raise RecipeError(f"{where} = {error}") from error


def make_part(
    where: str, part: Part, *parts: Any, spec: DataSpec | None = None, filled: Mapping[str, Any] | None = None
) -> Any:
    """The part itself.

    Args:
        where: the recipe key under which it stands.
        part: its name and options.
        parts: other parts that it is made of, before its options.
        spec: the data; it fills in those of ``image_shape``, ``mean``, ``std`` and ``num_classes`` that the part
            asks for and the recipe leaves out.
        filled: arguments by name that are no options.

    Raises:
        RecipeError: an unknown name or option, a value the part refuses, or a class of another kind.
    """
    cls, given = _checked(where, part)
    facts = {} if spec is None else {name: value for name, value in _facts(spec).items() if name in options(cls)}
    try:
        made = cls(*parts, **{**facts, **(filled or {}), **given})
    except RecipeError:
        raise
    except (InputError, ValueError, TypeError) as error:
        raise RecipeError(f"{where} ({part.kind}): {error}") from error
    kind = KINDS[where]
    if not isinstance(made, kind.base):
        raise RecipeError(
            f'{where} = "{part.kind}": {cls.__name__} is no {kind.name}; it has to be what '
            f"{kind.base.__module__}.{kind.base.__name__} describes."
        )
    if kind.is_told and not dataclasses.is_dataclass(made):
        raise RecipeError(
            f'{where} = "{part.kind}": {cls.__name__} is no dataclass; make it a frozen one, so that a sketch can '
            "record the options it was taken with."
        )
    return made


def check_part(where: str, part: Part) -> None:
    """Refuse a part that could not be made; of one that is made of data, only names and types are checked."""
    if _SHAPE not in options(_checked(where, part)[0]) and not KINDS[where].made_of:
        make_part(where, part)


def _checked(where: str, part: Part) -> tuple[type[Any], dict[str, Any]]:
    """The part's class and its options, each known to it and of the type it asks for."""
    cls = part_class(where, part)
    known = {name: hint for name, hint in options(cls).items() if name not in KINDS[where].made_of}
    for name in part.options:
        if name not in known:
            raise RecipeError(f"{where}.{name}: {unknown(f'option of {part.kind}', name, known)}")
    return cls, {name: plain_value(known[name], value, f"{where}.{name}") for name, value in part.options.items()}


def _facts(spec: DataSpec) -> dict[str, Any]:
    shape, mean, std = list(spec.image_shape), list(spec.mean), list(spec.std)
    return {_SHAPE: shape, "mean": mean, "std": std, "num_classes": spec.num_classes}


def options(cls: type[Any]) -> dict[str, Any]:
    """Options of a part and their type hints: the fields of a dataclass, or the arguments of its constructor."""
    if dataclasses.is_dataclass(cls):
        source, names = cls, [each.name for each in dataclasses.fields(cls) if each.init]
    else:
        source, arguments = cls.__init__, inspect.signature(cls.__init__).parameters.values()
        names = [each.name for each in arguments if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)][1:]
    try:
        hints = get_type_hints(source)
    except NameError:  # Somebody's own, with types that only a checker imports: then the part checks its values.
        hints = {}
    return {name: hints.get(name, Any) for name in names}
