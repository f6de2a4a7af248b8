"""Plain values of a TOML against the type hints of what they are for."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from latentdc.errors import RecipeError, unknown


def bare(hint: Any) -> Any:
    """``X`` of ``X | None``; any other hint as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [each for each in get_args(hint) if each is not type(None)]
        return inner[0] if len(inner) == 1 else hint
    return hint


def plain_value(hint: Any, value: Any, where: str) -> Any:
    """The value as its hint wants it: a whole number becomes a float, a list a tuple; nothing else is converted.

    A hint that is none of ``bool``, ``int``, ``float``, ``str``, a ``Literal``, or a ``tuple`` or an optional of these
    is left to whoever takes the value.

    Raises:
        RecipeError: a value of another type.
    """
    inner = bare(hint)
    if inner is not hint and value is None:
        return None
    if get_origin(inner) is tuple:
        return _tuple(get_args(inner), value, where)
    if get_origin(inner) is Literal:
        if value not in get_args(inner):
            raise RecipeError(f"{where} = {unknown('choice', str(value), map(str, get_args(inner)))}")
        return value
    if inner not in (bool, int, float, str):
        return value
    if inner is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, inner) or (isinstance(value, bool) and inner is not bool):
        raise RecipeError(f"{where} = {value!r}: a value of type {inner.__name__} is needed here.")
    return value


def _tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise RecipeError(f"{where} = {value!r}: a list is needed here.")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        raise RecipeError(f"{where} = {value!r}: {len(hints)} values are needed here.")
    return tuple(plain_value(hint, each, where) for hint, each in zip(hints, value, strict=True))
