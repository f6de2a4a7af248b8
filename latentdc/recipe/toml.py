"""TOML ⇄ ``Recipe``: every key is checked, every mistake answered with the nearest thing that would do."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from latentdc.errors import InputError, RecipeError, unknown
from latentdc.recipe.parts import check_part, is_stored
from latentdc.recipe.spec import Part, Recipe
from latentdc.recipe.values import bare, plain_value
from latentdc.resources import find

_BUDGET = ("images_per_class", "bytes_per_class")


def load_recipe(
    source: str | Path, *, settings: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A shipped recipe by name, or one from a TOML file.

    Args:
        source: a name of ``pipelines/``, or a path that ends in ``.toml``.
        settings: ``"key=value"`` texts as the command line gives them, for instance ``"optim.lr=0.05"``.
        overrides: dotted keys and values, applied after ``settings``; a value of None unsets.

    Raises:
        RecipeError: the file is no TOML, or a key or value is wrong; the message names the nearest right one.
        InputError: no such recipe or file.
    """
    path = Path(source) if str(source).endswith(".toml") else find("pipelines", str(source))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such recipe file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a recipe file ({error.strerror}).") from error
    except ValueError as error:  # TOML that is wrong, or no text at all.
        raise RecipeError(f"{path}: not a TOML file: {error}") from error
    table.setdefault("name", path.stem)
    return parse_recipe(table, settings=settings, overrides=overrides)


def parse_recipe(
    table: Mapping[str, Any], *, settings: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from the nested values of a TOML; see ``load_recipe``."""
    raw: dict[str, Any] = _plain(table, "")
    changes = dict(parse_setting(text) for text in settings) | dict(overrides or {})
    budget = [name for name in _BUDGET if changes.get(name) is not None]
    if len(budget) > 1:
        raise RecipeError("images_per_class and bytes_per_class were both given: give exactly one.")
    if budget:
        # A budget given by hand replaces the recipe's, of whichever kind that is.
        raw = {name: value for name, value in raw.items() if name not in _BUDGET}
    # A section replaced by name comes first, then what is changed inside it, in whatever order they were given.
    for name, value in sorted(changes.items(), key=lambda change: change[0].count(".")):
        _put(raw, name.split("."), _plain(value, name), name)
    recipe = from_table(Recipe, raw, "")
    assert isinstance(recipe, Recipe)
    return recipe


def parse_setting(text: str) -> tuple[str, Any]:
    """``"key=value"`` as a dotted key and a value; the value is read as TOML, ``none`` unsets, anything else is text.

    Raises:
        RecipeError: no ``=``.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise RecipeError(f'--set "{text}": write key=value, for instance --set optim.lr=0.05.')
    if value.lower() == "none":
        return name, None
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, keys that are not set left out; ``parse_recipe`` reads it back equal."""
    nested = recipe.as_dict()
    plain = {name: value for name, value in nested.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"{name} = {_toml(value)}" for name, value in plain.items()]
    for name, value in nested.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_toml(v)}" for key, v in _inlined(value).items() if v is not None)]
    return "\n".join(lines) + "\n"


def _inlined(section: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options beside its kind, as a user would write them."""
    options = section.get("options")
    return {"kind": section["kind"], **options} if isinstance(options, Mapping) else dict(section)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_toml(v)}" for key, v in _inlined(value).items() if v is not None)
        return f"{{ {inside} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any, where: str) -> Any:
    """A copy in the values JSON has as well: what is stored of a recipe is JSON."""
    if isinstance(value, Mapping):
        return {name: _plain(each, f"{where}.{name}" if where else name) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, where) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(
            f"{where} = {value}: give a finite number; JSON, in which recipes are stored, knows no other."
        )
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise RecipeError(
        f"{where} = {value}: a {type(value).__name__} is no value of a recipe; write a text in quotes, a number, true, "
        "false, a list or a section."
    )


def _put(raw: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    *above, last = keys
    for key in above:
        inner = raw.setdefault(key, {})
        if isinstance(inner, str):  # A part written as its bare name.
            inner = raw[key] = {"kind": inner}
        if not isinstance(inner, dict):
            raise RecipeError(f"{where} = {value!r}: {key} is a value, not a section.")
        raw = inner
    if value is None:
        raw.pop(last, None)
    else:
        raw[last] = value


def from_table(cls: type, table: Any, where: str) -> object:
    """A dataclass from nested plain values: each key known, each value of its type.

    Raises:
        RecipeError: it is not; the message names the nearest.
    """
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where} = {table!r}: a section of keys is needed here.")
    hints = get_type_hints(cls)
    names = [each.name for each in dataclasses.fields(cls)]
    values = {}
    for name, value in table.items():
        path = f"{where}.{name}" if where else name
        if name not in names:
            raise RecipeError(f"{where}: {unknown('key', name, names)}" if where else unknown("key", name, names))
        values[name] = _value(hints[name], value, path)
    try:
        return cls(**values)
    except RecipeError:
        raise
    except InputError as error:
        raise RecipeError(str(error)) from error


def _value(hint: Any, value: Any, where: str) -> Any:
    inner = bare(hint)
    if get_origin(inner) is tuple and Part in get_args(inner):
        return tuple(_part(each, where) for each in plain_value(tuple[Any, ...], value, where))
    if get_origin(inner) is tuple and dataclasses.is_dataclass(of := get_args(inner)[0]) and isinstance(of, type):
        return tuple(from_table(of, each, where) for each in plain_value(tuple[Any, ...], value, where))
    if inner is Part:
        return _part(value, where)
    if Part in get_args(inner):  # or a name
        return _decoder(value, where)
    if get_origin(inner) is Mapping and get_origin(get_args(inner)[1]) is tuple:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} = {value!r}: a section of names and lists is needed here.")
        return {name: plain_value(get_args(inner)[1], each, f"{where}.{name}") for name, each in value.items()}
    if dataclasses.is_dataclass(inner) and isinstance(inner, type):
        return from_table(inner, value, where)
    return plain_value(hint, value, where)


def _decoder(value: Any, where: str) -> Part | str:
    """A name, or a section; settings of a pretrained decoder are checked where it is found."""
    if isinstance(value, str):
        return value
    part = _part(value, where, check=not isinstance(value, Mapping) or is_stored(str(value.get("kind"))))
    return part if part.options or is_stored(part.kind) else part.kind


def _part(value: Any, where: str, *, check: bool = True) -> Part:
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not isinstance(table.get("kind"), str):
        raise RecipeError(f"{where} = {value!r}: give a name, or a section with kind and options.")
    part = Part(table["kind"], {name: each for name, each in table.items() if name != "kind"})
    if check:
        check_part(where, part)
    return part
