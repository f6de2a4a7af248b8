"""The laws of the house, read from the syntax tree: who may import whom, how large things grow, what is never written.

Each rule maps a source tree to the list of its violations; ``test_architecture.py`` holds the package to all of them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FLOORS = (
    ("portable",),
    ("types", "errors", "seeding", "clusters", "resources", "allocator", "atomic", "machine", "grid", "devices", "hub"),
    ("discrepancies", "networks", "data", "decoders"),
    ("source", "representations", "latents", "passing"),
    ("objectives", "sketch", "bundle", "initialise", "checkpoint", "optim", "sharing", "labels"),
    ("condense", "fit", "evaluate", "convert"),
    ("recipe",),
    ("pipelines", "report", "plots"),
    ("cli",),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
PILLARS = set(FLOORS[2])
WAIST_SIDES = ({"objectives", "source", "sketch"}, {"decoders", "portable", "latents", "passing"})
JUNK_DRAWERS = {"utils", "helpers", "common", "misc", "util", "helper"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed file: its dotted name inside the package, its tree, its text."""

    name: str
    path: str
    tree: ast.Module
    num_lines: int

    @property
    def part(self) -> str:
        """First component below the package: the room this file is in (empty for the package itself)."""
        return ([*self.name.split("."), ""])[1]


@cache
def modules(root: Path) -> dict[str, Module]:
    """All files of ``root/latentdc`` by dotted name."""
    found = {}
    for path in sorted((root / "latentdc").rglob("*.py")):
        relative = path.relative_to(root)
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, str(relative), ast.parse(text), len(text.splitlines()))
    return found


def imports(module: Module, known: dict[str, Module]) -> Iterator[tuple[int, str]]:
    """Every import anywhere in the file, late and type-checking ones too: (line, dotted target)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                yield node.lineno, deeper if deeper in known or base == "latentdc" else base
        elif isinstance(node, ast.Call) and _called(node) == "import_module" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def ours(root: Path) -> Iterator[tuple[Module, int, str]]:
    """Imports of the package by itself: (importing file, line, target)."""
    known = modules(root)
    for module in known.values():
        for line, target in imports(module, known):
            if target.split(".")[0] == "latentdc":
                yield module, line, target


def room(target: str) -> str:
    """First component below the package of a dotted target."""
    return ([*target.split("."), ""])[1]


def functions(root: Path) -> Iterator[tuple[Module, Function]]:
    """Every function and method of the package, nested ones too."""
    for module in modules(root).values():
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                yield module, node


def known_rooms(root: Path) -> list[str]:
    """Every file belongs to a floor."""
    free = {"", "__main__", *FLOOR}
    return [f"{m.path}: {m.part!r} is on no floor" for m in modules(root).values() if m.part not in free]


def floors(root: Path) -> list[str]:
    """A lower floor never imports a higher one, nor a public name by way of the package's own list."""
    return [
        f"{m.path}:{line}: {m.part} (floor {FLOOR[m.part]}) imports {target}"
        for m, line, target in ours(root)
        if m.part in FLOOR and room(target) and not room(target).startswith("__")
        if FLOOR.get(room(target), len(FLOORS)) > FLOOR[m.part]
    ]


def pillars(root: Path) -> list[str]:
    """Discrepancies, networks, data and decoders never import each other."""
    return [
        f"{m.path}:{line}: pillar {m.part} imports pillar {target}"
        for m, line, target in ours(root)
        if m.part in PILLARS and room(target) in PILLARS - {m.part}
    ]


def waist(root: Path) -> list[str]:
    """What judges a set never imports what stores it."""
    below, above = WAIST_SIDES
    return [
        f"{m.path}:{line}: {m.part} reaches through the waist to {target}"
        for m, line, target in ours(root)
        if m.part in below and room(target) in above
    ]


def portable(root: Path) -> list[str]:
    """What travels inside a bundle imports torch, diffusers and the standard library, nothing relative."""
    return _foreign(root, "portable", {"torch", "diffusers"}, set())


def discrepancies(root: Path) -> list[str]:
    """Discrepancies import torch, einops, the glossary, the errors and each other."""
    return _foreign(root, "discrepancies", {"torch", "einops"}, {"types", "errors", "clusters", "discrepancies"})


def _foreign(root: Path, part: str, libraries: set[str], rooms: set[str]) -> list[str]:
    known, found = modules(root), []
    for module in known.values():
        for line, target in imports(module, known) if module.part == part else ():
            top = target.split(".")[0]
            allowed = top in libraries or top in sys.stdlib_module_names
            if not (allowed or (top == "latentdc" and room(target) in rooms)):
                found.append(f"{module.path}:{line}: {part} imports {target}")
    return found


def absolute(root: Path) -> list[str]:
    """Imports are absolute."""
    known = modules(root)
    return [
        f"{m.path}:{line}: relative import {target}"
        for m in known.values()
        for line, target in imports(m, known)
        if target.startswith(".")
    ]


def ignorance(root: Path) -> list[str]:
    """The loop knows no bundle and no recipe; a bundle knows no optimiser; nothing knows the command line."""
    banned = {"condense": ("latentdc.bundle", "latentdc.recipe"), "bundle": ("torch.optim", "latentdc.condense")}
    known, found = modules(root), []
    for module in known.values():
        for line, target in imports(module, known):
            if target.startswith(banned.get(module.part, ("\0",))):
                found.append(f"{module.path}:{line}: {module.part} imports {target}")
            if room(target) == "cli" and target.startswith("latentdc") and module.part not in {"cli", "__main__"}:
                found.append(f"{module.path}:{line}: imports the command line")
    return found


def only_names(root: Path) -> list[str]:
    """``__init__.py`` files hold a docstring, imports, tables and lazy lookup; nothing else."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)
    found = []
    for module in modules(root).values():
        for node in module.tree.body if module.path.endswith("__init__.py") else ():
            lazy = isinstance(node, ast.FunctionDef) and node.name in {"__getattr__", "__dir__"}
            if not (lazy or isinstance(node, allowed)):
                found.append(f"{module.path}:{node.lineno}: {type(node).__name__} in an __init__.py")
    return found


def junk_drawers(root: Path) -> list[str]:
    """No file is named after what it is not."""
    return [f"{m.path}: junk drawer" for m in modules(root).values() if JUNK_DRAWERS & set(m.name.split("."))]


def cycles(root: Path) -> list[str]:
    """No file imports itself, however indirectly."""
    graph: dict[str, set[str]] = {name: set() for name in modules(root)}
    for module, _, target in ours(root):
        graph[module.name].add(target)
    state: dict[str, int] = {}
    found = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        state[name] = 1
        for target in sorted(graph.get(name, ())):
            if state.get(target) == 1:
                found.append(" -> ".join((*trail[trail.index(target) :], target)))
            elif target not in state and target in graph:
                visit(target, (*trail, target))
        state[name] = 2

    for name in graph:
        if name not in state:
            visit(name, (name,))
    return found


def file_length(root: Path) -> list[str]:
    """A file has at most 300 lines, tests and examples too."""
    paths = [path for folder in ("latentdc", "tests", "examples") for path in sorted((root / folder).rglob("*.py"))]
    sizes = [(path, len(path.read_text(encoding="utf-8").splitlines())) for path in paths]
    return [f"{path.relative_to(root)}: {size} lines" for path, size in sizes if size > 300]


def function_length(root: Path) -> list[str]:
    """A function has at most 50 lines; its docstring does not count."""
    found = []
    for module, node in functions(root):
        size = _lines(node) - (_lines(node.body[0]) if ast.get_docstring(node) else 0)
        if size > 50:
            found.append(f"{module.path}:{node.lineno}: {node.name} has {size} lines")
    return found


def _lines(node: Function | ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def positional(root: Path) -> list[str]:
    """A function takes at most 7 positional parameters besides ``self``."""
    found = []
    for module, node in functions(root):
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in {"self", "cls"}]
        if len(names) > 7:
            found.append(f"{module.path}:{node.lineno}: {node.name} takes {len(names)} positional parameters")
    return found


def pass_through(root: Path) -> list[str]:
    """No function hands its ``**kwargs`` on unread."""
    found = []
    for module, node in functions(root):
        own = node.args.kwarg.arg if node.args.kwarg else None
        for call in ast.walk(node) if own else ():
            handed = [k for k in call.keywords if k.arg is None] if isinstance(call, ast.Call) else []
            if any(isinstance(k.value, ast.Name) and k.value.id == own for k in handed):
                found.append(f"{module.path}:{call.lineno}: {node.name} passes **{own} through")
    return found


def prints(root: Path) -> list[str]:
    """Nothing prints."""
    return [
        f"{m.path}:{node.lineno}: print"
        for m in modules(root).values()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def docstrings(root: Path) -> list[str]:
    """Every public module, class, function and method says what it is."""
    found = []

    def visit(module: Module, node: ast.AST, trail: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, *Function.__args__)) and not child.name.startswith("_"):
                if ast.get_docstring(child) is None:
                    found.append(f"{module.path}:{child.lineno}: {trail}{child.name} has no docstring")
                if isinstance(child, ast.ClassDef):
                    visit(module, child, f"{trail}{child.name}.")

    for module in modules(root).values():
        if ast.get_docstring(module.tree) is None:
            found.append(f"{module.path}:1: module has no docstring")
        visit(module, module.tree, "")
    return found
