"""One place that decides how a network's passes run: precision and compilation."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, TypeVarTuple

import torch
from torch import Tensor, nn

from latentdc.devices import check_precision
from latentdc.errors import InputError, MissingExtraError
from latentdc.types import EVERYTHING, Net, Observation, Part

Precision = Literal["fp32", "bf16"]
Observe = Callable[[Net, Tensor], Observation]
Arguments = TypeVarTuple("Arguments")
R = TypeVar("R")
_SHAPES = 64
"""Batch shapes one process may compile a function for; torch's own limit of 8 would quietly go back to eager."""


def precision_context(precision: str, device: torch.device) -> torch.autocast:
    """Autocast for ``"bf16"``, a context that does nothing for ``"fp32"``; warns once where bf16 is slow.

    Raises:
        InputError: another precision.
    """
    check_precision(precision, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def missing_compiler(device: torch.device | str = "cpu") -> str | None:
    """What ``torch.compile`` lacks for this device, in words, or None if it has all it needs."""
    if torch.device(device).type == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton"
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if not any(shutil.which(name) for name in candidates):
        return f"a C++ compiler ({' or '.join(candidates)} on the PATH)"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Python's C headers (Debian: python3-dev)"
    return None


def require_compiler(device: torch.device | str = "cpu") -> None:
    """Check that ``compile=True`` can work before any time is spent.

    Raises:
        MissingExtraError: something is missing; the message names it.
    """
    missing = missing_compiler(device)
    if missing is not None:
        raise MissingExtraError(f"compile=True needs {missing}: install it, or leave compile off (the same, slower)")


def compiled(function: Callable[[*Arguments], R]) -> Callable[[*Arguments], R]:
    """``torch.compile`` for fixed shapes: every new shape costs one compilation (10 to 30 s on a CPU), up to 64.

    Compilations belong to the function's code, not to this wrapper: a second wrapper of the same function reuses them.
    """
    inner = torch.compile(function, dynamic=False)

    def call(*arguments: *Arguments) -> R:
        with torch._dynamo.config.patch(recompile_limit=_SHAPES), warnings.catch_warnings():
            # While tracing, torch looks at the .grad of every input and warns of those that are no leaves.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            return inner(*arguments)

    return call


def _observe(network: Net, x: Tensor) -> Observation:
    return network.observe(x)


def _observe_only(network: Net, x: Tensor, parts: frozenset[Part]) -> Observation:
    return network.observe(x).only(parts)


def observer(
    *, compile: bool = False, device: torch.device | str = "cpu", parts: frozenset[Part] = EVERYTHING
) -> Observe:
    """``observe(network, x)``, compiled if asked.

    The compiled function takes the network as an argument, so the networks of a pool share one compilation.

    Args:
        compile: compile it.
        device: where it will run.
        parts: what will be looked at besides embedding and class scores. Compiled, the rest is left out: ``features``
            are then the embedding alone, ``maps`` are empty. Whatever a compiled pass shows is written to memory, and
            its gradient read from there, be it zero: without the features a step's pass takes five sixths of the
            time, and with the maps twice that of an uncompiled one, so that a pass that is to show these is not
            (``tests/bench/bench_showing.py``).

    Raises:
        MissingExtraError: ``compile`` without a compiler.
    """
    if not compile:
        return _observe
    require_compiler(device)
    if "maps" in parts:
        return _observe
    inner = compiled(_observe_only)
    return lambda network, x: inner(network, x, parts)


def _scores(network: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    found: Tensor = torch.func.functional_call(network, weights, (x,))
    return found


_compiled_scores = functools.cache(lambda: compiled(_scores))


def scores(net: Net, weights: dict[str, Tensor], x: Tensor, *, once: bool) -> Tensor:
    """Class scores ``(n, k)`` of images ``(n, c, h, w)`` by a network with other weights in the place of its own.

    Args:
        net: a network, or the compiled way to run it.
        weights: by the names of its parameters.
        x: images.
        once: gradients will be taken, but not differentiated again: only then can a compiled pass be used.

    Raises:
        InputError: there is no network with weights behind it.
    """
    run = _compiled_scores() if once and any(isinstance(each, Observed) for each in behind(net)) else _scores
    return run(module_of(net), weights, x)


def behind(net: object) -> Iterator[object]:
    """A network as the loop sees it, what that is another way to run (its ``net``), and so on to the network itself."""
    yield net
    while not isinstance(net, nn.Module) and hasattr(net, "net"):
        net = net.net
        yield net


def module_of(net: Net) -> nn.Module:
    """The network itself, also of another way to run it.

    Raises:
        InputError: it is no module, so that it has no weights that could be looked at.
    """
    *_, inner = behind(net)
    if not isinstance(inner, nn.Module):
        raise InputError(f"{type(inner).__name__} is no torch module: gradients of weights need one.")
    return inner


@dataclass(frozen=True)
class Observed:
    """A network as the loop sees it (see ``latentdc.types.Net``), compiled."""

    net: Net
    run: Observe

    def observe(self, x: Tensor) -> Observation:
        """``run(net, x)``."""
        return self.run(self.net, x)
