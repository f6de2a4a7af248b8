"""A state dictionary of any importable generator → a decoder that names its class; no code of the file is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentdc.convert.states import WRAPPERS, State, listed, read_state
from latentdc.decoders.module import adapt, tried
from latentdc.errors import InputError
from latentdc.portable.module import ModuleDecoder


@dataclass(frozen=True)
class Generator:
    """How a generator is made and called; see ``latentdc.decoders.module.adapt``."""

    module: str
    """``"package.module:Class"``, an ``nn.Module``."""
    z_shape: tuple[int, ...]
    """Shape of one latent."""
    labels: str = "none"
    """``"none"``, ``"index"``, ``"one-hot"`` or ``"concatenated"``."""
    num_classes: int = 0
    """Classes that it takes; 0 with labels ``"none"``."""
    output_range: tuple[float, float] = (-1.0, 1.0)
    """Of its images."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Named arguments of the class."""


def read_module(path: Path, given: Generator) -> ModuleDecoder:
    """The generator with the weights of a file, as a decoder.

    Raises:
        InputError: no such class, one that cannot be called as said, or weights that are not its own.
        BundleError: a damaged file.
    """
    state = read_state(path)
    decoder = adapt(
        given.module,
        given.z_shape,
        labels=given.labels,
        num_classes=given.num_classes,
        output_range=given.output_range,
        arguments=given.arguments,
    )
    if not decoder.storable:
        raise InputError(
            f"--module {given.module}: is no class that can be imported under its own name; give "
            '"package.module:Class" of the nn.Module, where it is defined.'
        )
    decoder.module.load_state_dict(_named(state, decoder.module.state_dict(), f"{path}: as a {given.module}"))
    tried(decoder)
    return decoder


def _named(state: State, wanted: State, what: str) -> State:
    """The state under the module's own names: a prefix that was cut off may be part of them.

    Raises:
        InputError: names or shapes that are not the module's.
    """
    # Counters of training batches have no part in decoding; no source needs to have them.
    counters = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")}
    for prefix in ("", *WRAPPERS):
        found = {**counters, **{prefix + name: value for name, value in state.items()}}
        if found.keys() == wanted.keys():
            break
    else:
        missing, extra = wanted.keys() - counters.keys() - state.keys(), state.keys() - wanted.keys()
        raise InputError(
            f"{what}: missing weights {listed(missing)}; left over {listed(extra)}. Give the class (--module) and "
            "--arguments that it was trained with."
        )
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise InputError(
                f"{what}: {name} is {tuple(value.shape)}, the class makes it {tuple(wanted[name].shape)}. Give the "
                "--arguments that it was trained with."
            )
    return found
