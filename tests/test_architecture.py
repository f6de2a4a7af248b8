"""The package keeps the laws of the house, and the checker notices when it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from laws import (
    absolute,
    cycles,
    discrepancies,
    docstrings,
    file_length,
    floors,
    function_length,
    ignorance,
    junk_drawers,
    known_rooms,
    modules,
    only_names,
    pass_through,
    pillars,
    portable,
    positional,
    prints,
    waist,
)

REPOSITORY = Path(__file__).resolve().parents[1]
Rule = Callable[[Path], list[str]]
CAUGHT: dict[Rule, tuple[str, str]] = {
    known_rooms: ("attic.py", ""),
    floors: ("types.py", "def f():\n    from latentdc.condense import condense\n"),
    pillars: ("networks/base.py", "import latentdc.data.store\n"),
    waist: ("objectives/match.py", "from latentdc import decoders\n"),
    portable: ("portable/bank.py", "import numpy\n"),
    discrepancies: ("discrepancies/mmd.py", "from latentdc.seeding import stream\n"),
    absolute: ("data/store.py", "from . import sources\n"),
    ignorance: ("condense.py", "import latentdc.bundle\n"),
    only_names: ("data/__init__.py", "def load(): ...\n"),
    junk_drawers: ("data/utils.py", ""),
    cycles: ("errors.py", "from latentdc.types import Batch\n"),
    file_length: ("types.py", "\n" * 301),
    function_length: ("types.py", "def f():\n" + "    pass\n" * 50),
    positional: ("types.py", "def f(a, b, c, d, e, f, g, h): ...\n"),
    pass_through: ("types.py", "def f(**kwargs):\n    return dict(**kwargs)\n"),
    prints: ("types.py", "print(1)\n"),
    docstrings: ("types.py", "'''Doc.'''\nclass A:\n    '''Doc.'''\n    def f(self): ...\n"),
}
"""Every rule, and one file that breaks it."""


@pytest.mark.parametrize("rule", CAUGHT, ids=lambda rule: rule.__name__)
def test_law(rule: Rule) -> None:
    broken = rule(REPOSITORY)
    assert not broken, f"{rule.__doc__}\n  " + "\n  ".join(broken)


@pytest.mark.parametrize("rule", CAUGHT, ids=lambda rule: rule.__name__)
def test_checker_catches(rule: Rule, tmp_path: Path) -> None:
    lawful = {name: f'"""Room."""\n{body}' for name, body in SOUND.items()}
    for name, text in lawful.items():
        path = tmp_path / "latentdc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert rule(tmp_path) == []
    modules.cache_clear()
    name, text = CAUGHT[rule]
    (tmp_path / "latentdc" / name).write_text(text)
    assert rule(tmp_path), f"{rule.__name__} does not notice {name}"


SOUND = {
    "__init__.py": "",
    "types.py": "import latentdc.errors\n",
    "errors.py": "",
    "condense.py": "from latentdc.types import Batch\n",
    "bundle.py": "",
    "portable/bank.py": "import torch\n",
    "discrepancies/mmd.py": "import einops\nfrom latentdc.types import Batch\n",
    "objectives/match.py": "",
    "decoders/__init__.py": "DECODERS = {}\n",
    "networks/base.py": "",
    "data/__init__.py": "",
    "data/store.py": "",
    "cli/__init__.py": "import latentdc.condense\n",
}
"""A small tree that breaks no rule."""
