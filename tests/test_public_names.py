"""The public names: listed once, all resolvable, none imported before it is used."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import latentdc


@pytest.mark.parametrize("name", [name for names in latentdc.PUBLIC.values() for name in names])
def test_name_resolves(name: str) -> None:
    value = getattr(latentdc, name)
    assert value.__name__ == name
    assert name in dir(latentdc)
    assert name in latentdc.__all__


@pytest.mark.parametrize("module", latentdc.PUBLIC)
def test_home_is_where_the_list_says(module: str) -> None:
    assert all(hasattr(importlib.import_module(module), name) for name in latentdc.PUBLIC[module])


def test_no_name_is_listed_twice() -> None:
    names = [name for names in latentdc.PUBLIC.values() for name in names]
    assert len(names) == len(set(names))


def test_no_name_hides_a_module() -> None:
    names = {name for names in latentdc.PUBLIC.values() for name in names}
    assert not names & {module.name for module in pkgutil.iter_modules(latentdc.__path__)}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Bundel"):
        _ = latentdc.Bundel


def test_import_is_light() -> None:
    code = "import latentdc, sys; print([m for m in ('torch', 'numpy', 'diffusers', 'PIL') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
