"""NVIDIA's StyleGAN2 and StyleGAN2-ADA generators, as pickles or state dictionaries → ``StyleGan2Decoder``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentdc.convert.inert import Stub, read_inert
from latentdc.convert.states import State, Taken, listed, plain, read_state
from latentdc.errors import InputError

_GENERATORS = ("G_ema", "Gs", "g_ema", "G")
_MODULES = 10_000
"""Modules in a file; a generator has some hundred."""
_NAME = 1_000
"""Letters in a module's dotted name."""


def read_stylegan2(path: Path) -> tuple[dict[str, Any], State]:
    """Configuration and weights of a ``StyleGan2Decoder``.

    The file is a pickle of persistent objects, read without running the source code it carries, or a state dictionary
    with the same names.

    Raises:
        InputError: another layout, another architecture than skip outputs, or a file that is too large or not there.
        BundleError: a damaged or hostile file.
    """
    attributes: dict[str, Any] = {}
    if path.suffix == ".safetensors" or (path.is_file() and zipfile.is_zipfile(path)):
        state = read_state(path)
    else:
        root = read_inert(path)
        name = next((name for name in _GENERATORS if isinstance(root, Mapping) and name in root), None)
        generator = root if name is None else root[name]
        tensors: State = {}
        for key, value in _walk(generator):
            (tensors if isinstance(value, Tensor) else attributes)[key] = value
        state = tensors or plain(root, str(path))
    return _mapped(state, attributes)


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Tensors and plain attributes of a pickled module and of the modules in it, by dotted name."""
    waiting, num = [("", root)], 0
    while waiting:
        prefix, node = waiting.pop()
        num += 1
        if num > _MODULES or len(prefix) > _NAME:  # modules that hold each other have no end
            raise InputError(f"more than {_MODULES:,} modules, or names longer than {_NAME:,} letters; no generator.")
        state = _state(node)
        for group in ("_parameters", "_buffers"):
            for name, value in _items(state.get(group)):
                if isinstance(value, Tensor):
                    yield prefix + str(name), value
        for name, value in _items(state):
            if isinstance(value, bool | int | float | str) and not str(name).startswith("_"):
                yield prefix + str(name), value
        waiting += [(f"{prefix}{name}.", child) for name, child in _items(state.get("_modules"))]


def _items(group: Any) -> list[tuple[Any, Any]]:
    return list(group.items()) if isinstance(group, Mapping) else []


def _state(node: Any) -> Mapping[str, Any]:
    """Attributes of a pickled object: of a persistent one they lie in the dictionary that its rebuilder was given."""
    if not isinstance(node, Stub):
        return {}
    held = node.__dict__
    if held["args"] and held.get("state") == {} and isinstance(held["args"][0], Stub | Mapping):
        meta = held["args"][0]
        found = (meta.__dict__["items"] if isinstance(meta, Stub) else meta).get("state")
    else:
        found = held["state"]
    return found if isinstance(found, Mapping) else {}


def _mapped(state: State, attributes: Mapping[str, Any]) -> tuple[dict[str, Any], State]:
    for name, value in state.items():
        if name.endswith("resample_filter") and value.ndim == 2:
            _check_filter(name, value)
    if skips := [name for name in state if name.endswith(".skip.weight")]:
        raise InputError(f"a generator with residual shortcuts ({listed(skips)}); only skip outputs are built.")
    taken, out = Taken(state, "stylegan2"), State()
    config: dict[str, Any] = _mapping(taken, out, attributes)
    out["constant"] = taken.take("synthesis.b4.const")
    channels, side = [out["constant"].shape[0]], 4
    while True:
        block = f"synthesis.b{side}"
        if side > 4:
            _layer(taken, out, f"{block}.conv0", side)
            channels.append(out[f"layers.{2 * len(channels) - 1}.conv.weight"].shape[0])
        _layer(taken, out, f"{block}.conv1", side)
        _conv(taken, out, f"{block}.torgb", f"outputs.{len(channels) - 1}")
        if not taken.has(f"synthesis.b{2 * side}.conv0.weight"):
            break
        side *= 2
    taken.done()
    clamp = attributes.get("synthesis.b4.conv1.conv_clamp")
    depth = out["outputs.0.weight"].shape[0]
    return {**config, "channels": channels, "image_shape": [depth, side, side], "clamp": clamp}, out


def _mapping(taken: Taken, out: State, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Moves the mapping network; returns what it says of the configuration."""
    classes = taken.left["mapping.embed.weight"].shape[1] if taken.has("mapping.embed.weight") else 0
    if classes:
        _dense(taken, out, "mapping.embed", "mapper.embed")
    number = 0
    while number == 0 or taken.has(f"mapping.fc{number}.weight"):
        _dense(taken, out, f"mapping.fc{number}", f"mapper.layers.{number}")
        number += 1
    weights = [out[f"mapper.layers.{layer}.weight"] for layer in range(number)]
    w_dim = weights[-1].shape[0]
    out["mapper.mean"] = taken.take("mapping.w_avg")
    # The layers know their learning-rate multiplier as the gain of their bias; 0.01 is what all published files have.
    rate = attributes.get("mapping.fc0.bias_gain", 0.01)
    widths = [weight.shape[0] for weight in weights[:-1]]
    z_dim = weights[0].shape[1] - (w_dim if classes else 0)
    return {"num_classes": classes, "z_dim": z_dim, "w_dim": w_dim, "mapping": widths, "rate": float(rate)}


def _dense(taken: Taken, out: State, theirs: str, mine: str) -> None:
    for name in ("weight", "bias"):
        out[f"{mine}.{name}"] = taken.take(f"{theirs}.{name}")


def _conv(taken: Taken, out: State, theirs: str, mine: str) -> None:
    _dense(taken, out, f"{theirs}.affine", f"{mine}.style")
    out[f"{mine}.weight"] = taken.take(f"{theirs}.weight")
    out[f"{mine}.bias"] = taken.take(f"{theirs}.bias")[:, None, None]


def _layer(taken: Taken, out: State, theirs: str, side: int) -> None:
    number = sum(name.startswith("layers.") and name.endswith(".noise") for name in out)
    mine = f"layers.{number}"
    _conv(taken, out, theirs, f"{mine}.conv")
    quiet = not taken.has(f"{theirs}.noise_strength")  # trained without noise
    out[f"{mine}.strength"] = torch.zeros(()) if quiet else taken.take(f"{theirs}.noise_strength").reshape(())
    out[f"{mine}.noise"] = torch.zeros(side, side) if quiet else taken.take(f"{theirs}.noise_const")


def _check_filter(name: str, given: Tensor) -> None:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    if given.shape != (4, 4) or not torch.allclose(given.float(), torch.outer(taps, taps), atol=1e-6):
        raise InputError(f"{name} is another low-pass filter than [1, 3, 3, 1]; only that one is built.")
