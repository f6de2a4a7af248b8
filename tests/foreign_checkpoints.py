"""Checkpoints in the layouts of other code bases, with random weights: what the converters are tried on."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

State = dict[str, Tensor]
RAN: list[str] = []
"""What a pickle managed to call."""


def alarm(*arguments: Any, **_: Any) -> str:
    """Called by nobody."""
    RAN.append(repr(arguments))
    return "ran"


class Maker:
    """Adds layers to a state dictionary; ``style`` is how spectral normalisation is kept: torch, brock or none."""

    def __init__(self, style: str = "none", seed: int = 0) -> None:
        self.rng, self.style, self.state = torch.Generator().manual_seed(seed), style, State()

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.rng)

    def weight(self, name: str, *shape: int) -> None:
        raw = self.randn(*shape)
        matrix = raw.flatten(1)
        u = nn.functional.normalize(self.randn(shape[0]), dim=0)
        if self.style == "torch":
            v = nn.functional.normalize(matrix.T @ u, dim=0)
            self.state |= {f"{name}.weight_orig": raw, f"{name}.weight_u": u, f"{name}.weight_v": v}
        elif self.style == "parametrised":
            v = nn.functional.normalize(matrix.T @ u, dim=0)
            stem = f"{name}.parametrizations.weight"
            self.state |= {f"{stem}.original": raw, f"{stem}.0._u": u, f"{stem}.0._v": v}
        elif self.style == "brock":
            self.state |= {f"{name}.weight": raw, f"{name}.u0": u[None], f"{name}.sv0": torch.ones(1)}
        else:
            self.state[f"{name}.weight"] = raw / len(raw) ** 0.5

    def layer(self, name: str, *shape: int) -> None:
        self.weight(name, *shape)
        self.state[f"{name}.bias"] = self.randn(shape[0]) / 4

    def stats(self, name: str, size: int, mean: str, var: str) -> None:
        self.state |= {f"{name}.{mean}": self.randn(size) / 4, f"{name}.{var}": self.randn(size).square() + 0.5}

    def attention(self, name: str, parts: tuple[str, ...], gain: str, c: int) -> None:
        for part, outward, inward in zip(parts, (c // 8, c // 8, c // 2, c), (c, c, c, c // 2), strict=True):
            self.weight(f"{name}.{part}", outward, inward, 1, 1)
        self.state[f"{name}.{gain}"] = self.randn(1).squeeze() if gain == "gamma" else self.randn(1)


def biggan_pytorch(widths: tuple[int, ...] = (16, 8, 8), *, shared: bool = True, style: str = "brock") -> State:
    """Blocks between ``widths``, attention after the first; shared embedding with hierarchical z, or neither."""
    make, k, e, chunk = Maker(style), 3, 5, 2
    if shared:
        make.state["shared.weight"] = make.randn(k, e)
    make.layer("linear", widths[0] * 16, chunk if shared else 6)
    for i, (a, b) in enumerate(pairwise(widths)):
        for norm, width in (("bn1", a), ("bn2", b)):
            for part in ("gain", "bias"):
                if shared:
                    make.weight(f"blocks.{i}.0.{norm}.{part}", width, e + chunk)
                else:
                    make.state[f"blocks.{i}.0.{norm}.{part}.weight"] = make.randn(k, width)
            make.stats(f"blocks.{i}.0.{norm}", width, "stored_mean", "stored_var")
        make.layer(f"blocks.{i}.0.conv1", b, a, 3, 3)
        make.layer(f"blocks.{i}.0.conv2", b, b, 3, 3)
        make.layer(f"blocks.{i}.0.conv_sc", b, a, 1, 1)
    make.attention("blocks.0.1", ("theta", "phi", "g", "o"), "gamma", widths[1])
    make.state |= {"output_layer.0.gain": make.randn(widths[-1]), "output_layer.0.bias": make.randn(widths[-1])}
    make.stats("output_layer.0", widths[-1], "stored_mean", "stored_var")
    make.layer("output_layer.2", 3, widths[-1], 3, 3)
    return make.state


def studiogan(widths: tuple[int, ...] = (16, 8, 8), *, style: str = "torch") -> State:
    """Attention as an entry of its own after the first block: entries 0, 1, 2."""
    make, k, e, chunk = Maker(style), 3, 5, 2
    make.state["shared.weight"] = make.randn(k, e)
    make.layer("linear0", widths[0] * 16, chunk)
    for i, (a, b) in zip((0, 2), pairwise(widths), strict=True):
        for norm, width in (("bn1", a), ("bn2", b)):
            for part in ("gain", "bias"):
                make.weight(f"blocks.{i}.0.{norm}.{part}", width, e + chunk)
            make.stats(f"blocks.{i}.0.{norm}.bn", width, "running_mean", "running_var")
            make.state[f"blocks.{i}.0.{norm}.bn.num_batches_tracked"] = torch.tensor(7)
        make.layer(f"blocks.{i}.0.conv2d0", b, a, 1, 1)
        make.layer(f"blocks.{i}.0.conv2d1", b, a, 3, 3)
        make.layer(f"blocks.{i}.0.conv2d2", b, b, 3, 3)
    make.attention("blocks.1.0", ("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn"), "sigma", widths[1])
    make.state |= {"bn4.weight": make.randn(widths[-1]), "bn4.bias": make.randn(widths[-1])}
    make.stats("bn4", widths[-1], "running_mean", "running_var")
    make.layer("conv2d5", 3, widths[-1], 3, 3)
    return make.state


def pretrained_biggan(*, num_stats: int = 5) -> State:
    """BigGAN-deep: widths 16 → 16 → 8, attention before the second block: entries 0, 1, 2."""
    make, k, e = Maker("torch"), 3, 4
    make.state["embeddings.weight"] = make.randn(e, k)
    make.layer("generator.gen_z", 16 * 16, 2 * e)
    for i, (a, b) in zip((0, 2), ((16, 16), (16, 8)), strict=True):
        sizes = ((a, a // 4, 1), (a // 4, a // 4, 3), (a // 4, a // 4, 3), (a // 4, b, 1))
        for index, (inward, outward, size) in enumerate(sizes):
            name = f"generator.layers.{i}"
            make.layer(f"{name}.conv_{index}", outward, inward, size, size)
            for part in ("scale", "offset"):
                make.weight(f"{name}.bn_{index}.{part}", inward, 2 * e)
            tables(make, f"{name}.bn_{index}", num_stats, inward)
    parts = ("snconv1x1_theta", "snconv1x1_phi", "snconv1x1_g", "snconv1x1_o_conv")
    make.attention("generator.layers.1", parts, "gamma", 16)
    tables(make, "generator.bn", num_stats, 8)
    make.state |= {"generator.bn.weight": make.randn(8), "generator.bn.bias": make.randn(8)}
    make.layer("generator.conv_to_rgb", 8, 8, 3, 3)
    return make.state


def tables(make: Maker, name: str, num: int, size: int) -> None:
    make.state[f"{name}.running_means"] = make.randn(num, size) / 4
    make.state[f"{name}.running_vars"] = make.randn(num, size).square() + 0.5


def stylegan2(*, num_classes: int = 3, widths: tuple[int, ...] = (6, 4)) -> State:
    """NVIDIA's names: z of 4 numbers, w of 5, two mapping layers."""
    make, z, w = Maker(), 4, 5
    if num_classes:
        make.layer("mapping.embed", w, num_classes)
    make.layer("mapping.fc0", 7, z + (w if num_classes else 0))
    make.layer("mapping.fc1", w, 7)
    make.state["mapping.w_avg"] = make.randn(w)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for level, width in enumerate(widths):
        side = 4 * 2**level
        name, below = f"synthesis.b{side}", widths[max(0, level - 1)]
        make.state[f"{name}.resample_filter"] = torch.outer(taps, taps)
        if level == 0:
            make.state[f"{name}.const"] = make.randn(width, 4, 4)
        for conv, inward in (("conv0", below), ("conv1", width)) if level else (("conv1", width),):
            make.layer(f"{name}.{conv}.affine", inward, w)
            make.layer(f"{name}.{conv}", width, inward, 3, 3)
            make.state[f"{name}.{conv}.noise_const"] = make.randn(side, side)
            make.state[f"{name}.{conv}.noise_strength"] = torch.tensor(0.3)
        make.layer(f"{name}.torgb.affine", width, w)
        make.layer(f"{name}.torgb", 3, width, 1, 1)
    return make.state


SOURCE = "raise AssertionError('the source inside the pickle was run')\n"


def persistent_pickle(path: Path, state: State, attributes: dict[str, Any] | None = None) -> Path:
    """A pickle of persistent objects that carry source code, as NVIDIA's tools write it; loading it plainly raises.

    ``attributes`` are further attributes by dotted name; one parameter is stored as a numpy array.
    """
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    class EasyDict(dict):
        __module__, __qualname__ = "dnnlib.util", "EasyDict"

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        exec(meta["module_src"], {})

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = EasyDict

    class Persistent:
        def __init__(self, prefix: str) -> None:
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            extra = {n.removeprefix(prefix): v for n, v in (attributes or {}).items() if n.startswith(prefix)}
            heads = dict.fromkeys(name.split(".")[0] for name in own if "." in name)
            buffers = ("noise_const", "resample_filter", "w_avg")
            leaves = {name: value for name, value in own.items() if "." not in name}
            self.fields = {
                "training": False,
                "_parameters": OrderedDict((n, nn.Parameter(v)) for n, v in leaves.items() if n not in buffers),
                "_buffers": OrderedDict(
                    (n, v.numpy() if n == "w_avg" else v) for n, v in leaves.items() if n in buffers
                ),
                "_modules": OrderedDict((head, Persistent(f"{prefix}{head}.")) for head in heads),
                "_init_args": (),
                "_init_kwargs": EasyDict(size=numpy.float64(4)),
                **{name: value for name, value in extra.items() if "." not in name},
            }

        def __reduce__(self) -> Any:
            meta = EasyDict(type="class", version=6, module_src=SOURCE, class_name="Generator", state=self.fields)
            return _reconstruct_persistent_obj, (meta,)

    parents = {"torch_utils": types.ModuleType("torch_utils"), "dnnlib": types.ModuleType("dnnlib")}
    fakes = {**parents, "torch_utils.persistence": persistence, "dnnlib.util": util}
    sys.modules.update(fakes)
    try:
        content = pickle.dumps({"training_set_kwargs": EasyDict(), "G": None, "D": None, "G_ema": Persistent("")})
    finally:
        for name in fakes:
            del sys.modules[name]
    path.write_bytes(content)
    return path
