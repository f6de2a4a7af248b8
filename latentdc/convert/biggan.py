"""BigGAN generators of three code bases → ``BigGanDecoder``, with spectral normalisation folded into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentdc.convert.states import State, Taken, folded, read_state
from latentdc.errors import InputError

_ATTENTION = ("query", "key", "value", "back")
Names = tuple[str, ...]


def read_biggan_pytorch(path: Path) -> tuple[dict[str, Any], State]:
    """Configuration and weights from BigGAN-PyTorch's ``G.pth`` or ``G_ema.pth``; batch norm's eps is 1e-5.

    Generators with and without shared embedding and hierarchical z.

    Raises:
        InputError: another layout.
        BundleError: a damaged file.
    """
    taken, out = Taken(folded(read_state(path)), "biggan-pytorch"), State()
    shared = taken.take("shared.weight") if taken.has("shared.weight") else None
    channels, attention = _shallow(taken, out, shared)
    num = len(channels) - 1
    if shared is None:
        # Each norm has a table of its own: a linear map of the one-hot class.
        shared = torch.eye(out["blocks.0.norms.0.scale.weight"].shape[1])
    out["embed.weight"] = shared
    out["first.weight"], out["first.bias"] = taken.take("linear.weight"), taken.take("linear.bias")
    _plain_norm(taken, out, "output_layer.0", ("gain", "bias", "stored_mean", "stored_var"))
    _copy(taken, out, "output_layer.2", "out")
    taken.done()
    return _config(out, channels, attention, eps=1e-5, side=4 * 2**num), out


def _shallow(taken: Taken, out: State, shared: Tensor | None) -> tuple[list[int], list[int]]:
    """Moves the blocks; returns the widths between them and where attention sits."""
    channels: list[int] = []
    attention: list[int] = []
    number = 0
    while number == 0 or taken.has(f"blocks.{number}.0.conv1.weight"):
        theirs, mine = f"blocks.{number}.0", f"blocks.{number}"
        for index, norm in enumerate(("bn1", "bn2")):
            _norm(taken, out, f"{theirs}.{norm}", f"{mine}.norms.{index}", transposed=shared is None)
        for index, conv in enumerate(("conv1", "conv2")):
            _copy(taken, out, f"{theirs}.{conv}", f"{mine}.convs.{index}")
        _copy(taken, out, f"{theirs}.conv_sc", f"{mine}.shortcut")
        channels += [out[f"{mine}.shortcut.weight"].shape[1]] if not channels else []
        channels.append(out[f"{mine}.shortcut.weight"].shape[0])
        if taken.has(f"blocks.{number}.1.theta.weight"):
            attention.append(number)
            _attention(taken, out, f"blocks.{number}.1", mine, ("theta", "phi", "g", "o", "gamma"))
        number += 1
    return channels, attention


def read_studiogan(path: Path) -> tuple[dict[str, Any], State]:
    """Configuration and weights from PyTorch-StudioGAN's BigGAN (``big_resnet``, cBN); batch norm's eps is 1e-4.

    Raises:
        InputError: another layout.
        BundleError: a damaged file.
    """
    taken, out = Taken(folded(read_state(path)), "studiogan"), State()
    channels: list[int] = []
    attention: list[int] = []
    entry = 0
    while entry == 0 or any(taken.has(f"blocks.{entry}.0.{name}.weight") for name in ("conv2d1", "conv1x1_theta")):
        theirs, mine = f"blocks.{entry}.0", f"blocks.{max(0, len(channels) - 1)}"
        if taken.has(f"{theirs}.conv1x1_theta.weight"):  # an entry of its own in their list
            attention.append(len(channels) - 2)
            names = ("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn", "sigma")
            _attention(taken, out, theirs, f"blocks.{attention[-1]}", names)
        else:
            for index in range(2):
                _norm(taken, out, f"{theirs}.bn{index + 1}", f"{mine}.norms.{index}")
                _copy(taken, out, f"{theirs}.conv2d{index + 1}", f"{mine}.convs.{index}")
            _copy(taken, out, f"{theirs}.conv2d0", f"{mine}.shortcut")
            channels += [out[f"{mine}.shortcut.weight"].shape[1]] if not channels else []
            channels.append(out[f"{mine}.shortcut.weight"].shape[0])
        entry += 1
    out["embed.weight"] = taken.take("shared.weight")
    out["first.weight"], out["first.bias"] = taken.take("linear0.weight"), taken.take("linear0.bias")
    _plain_norm(taken, out, "bn4", ("weight", "bias", "running_mean", "running_var"))
    _copy(taken, out, "conv2d5", "out")
    taken.done()
    return _config(out, channels, attention, eps=1e-4, side=4 * 2 ** (len(channels) - 1)), out


def read_pretrained(path: Path, truncation: float | None) -> tuple[dict[str, Any], State]:
    """Configuration and weights from pytorch-pretrained-BigGAN's ``pytorch_model.bin`` (BigGAN-deep); eps is 1e-4.

    The file keeps batch statistics for 51 truncations; those nearest to ``truncation`` are taken (1 if None), and z is
    drawn truncated in the same way.

    Raises:
        InputError: another layout, or a truncation outside (0, 1].
        BundleError: a damaged file.
    """
    truncation = 1.0 if truncation is None else truncation
    if not 0 < truncation <= 1:
        raise InputError(f"truncation = {truncation}: give a number above 0 and up to 1 (--truncation).")
    taken, out = Taken(folded(read_state(path)), "pytorch-pretrained-biggan"), State()
    out["embed.weight"] = taken.take("embeddings.weight").T.contiguous()
    embed_dim = out["embed.weight"].shape[1]
    first, bias = taken.take("generator.gen_z.weight"), taken.take("generator.gen_z.bias")
    # Theirs makes (height, width, channels) of [z, class]; ours (channels, height, width) of [class, z].
    first = _class_first(first, embed_dim).reshape(4, 4, -1, first.shape[1]).permute(2, 0, 1, 3).flatten(0, 2)
    out["first.weight"], out["first.bias"] = (
        first.contiguous(),
        bias.reshape(4, 4, -1).permute(2, 0, 1).flatten(),
    )
    channels: list[int] = [len(bias) // 16]
    attention: list[int] = []
    entry = 0
    while entry == 0 or any(taken.has(f"generator.layers.{entry}.{n}.weight") for n in ("conv_0", "snconv1x1_theta")):
        theirs, mine = f"generator.layers.{entry}", f"blocks.{len(channels) - 1}"
        if taken.has(f"{theirs}.snconv1x1_theta.weight"):
            attention.append(len(channels) - 2)
            names = ("snconv1x1_theta", "snconv1x1_phi", "snconv1x1_g", "snconv1x1_o_conv", "gamma")
            _attention(taken, out, theirs, f"blocks.{attention[-1]}", names)
        else:
            for index in range(4):
                _indexed_norm(taken, out, (f"{theirs}.bn_{index}", f"{mine}.norms.{index}"), truncation, embed_dim)
                _copy(taken, out, f"{theirs}.conv_{index}", f"{mine}.convs.{index}")
            channels.append(out[f"{mine}.convs.3.weight"].shape[0])
        entry += 1
    for mean in ("running_means", "running_vars"):
        out[f"norm_out.{mean[:-1]}"] = _nearest(taken.take(f"generator.bn.{mean}"), truncation)
    out["norm_out.weight"], out["norm_out.bias"] = taken.take("generator.bn.weight"), taken.take("generator.bn.bias")
    # Their last convolution makes as many channels as it reads, of which the first three are the image.
    out["out.weight"] = taken.take("generator.conv_to_rgb.weight")[:3].contiguous()
    out["out.bias"] = taken.take("generator.conv_to_rgb.bias")[:3].contiguous()
    taken.done()
    side = 4 * 2 ** ((len(channels) - 1) // 2)
    return _config(out, channels, attention, eps=1e-4, side=side) | {"truncation": truncation}, out


def _config(out: State, channels: list[int], attention: list[int], *, eps: float, side: int) -> dict[str, Any]:
    """The configuration that the moved weights' shapes say."""
    num_classes, embed_dim = out["embed.weight"].shape
    head, condition = out["first.weight"].shape[1], out["blocks.0.norms.0.scale.weight"].shape[1]
    chunk, deep = condition - embed_dim, "blocks.0.convs.3.weight" in out
    hierarchical = chunk > 0 and not deep
    return {
        "image_shape": [out["out.weight"].shape[0], side, side],
        "num_classes": num_classes,
        "z_dim": chunk if deep else chunk * len(channels) if hierarchical else head,
        "channels": channels,
        "embed_dim": embed_dim,
        "attention": attention,
        "hierarchical": hierarchical,
        "deep": deep,
        "eps": eps,
    }


def _copy(taken: Taken, out: State, theirs: str, mine: str) -> None:
    for name in ("weight", "bias"):
        out[f"{mine}.{name}"] = taken.take(f"{theirs}.{name}")


def _norm(taken: Taken, out: State, theirs: str, mine: str, *, transposed: bool = False) -> None:
    """A conditional norm; ``transposed`` where scale and shift are tables ``(k, c)`` instead of matrices ``(c, d)``."""
    for ours, name in (("scale", "gain"), ("shift", "bias")):
        weight = taken.take(f"{theirs}.{name}.weight")
        out[f"{mine}.{ours}.weight"] = weight.T.contiguous() if transposed else weight
    for stat in ("mean", "var"):
        names = (f"{theirs}.stored_{stat}", f"{theirs}.bn.running_{stat}", f"{theirs}.bn.stored_{stat}")
        out[f"{mine}.norm.running_{stat}"] = taken.take(*names)


def _plain_norm(taken: Taken, out: State, theirs: str, names: Names) -> None:
    for mine, name in zip(("weight", "bias", "running_mean", "running_var"), names, strict=True):
        out[f"norm_out.{mine}"] = taken.take(f"{theirs}.{name}")


def _indexed_norm(taken: Taken, out: State, names: tuple[str, str], truncation: float, embed_dim: int) -> None:
    theirs, mine = names
    for ours, name in (("scale", "scale"), ("shift", "offset")):
        out[f"{mine}.{ours}.weight"] = _class_first(taken.take(f"{theirs}.{name}.weight"), embed_dim)
    for stat in ("running_means", "running_vars"):
        out[f"{mine}.norm.{stat[:-1]}"] = _nearest(taken.take(f"{theirs}.{stat}"), truncation)


def _nearest(table: Tensor, truncation: float) -> Tensor:
    """The row of ``(truncations, c)`` nearest to a truncation; the rows stand for 0 to 1 in equal steps."""
    return table[round(truncation * (len(table) - 1))].clone()


def _class_first(weight: Tensor, embed_dim: int) -> Tensor:
    """Columns for [z, class] in the order [class, z]."""
    return torch.cat([weight[:, -embed_dim:], weight[:, :-embed_dim]], dim=1)


def _attention(taken: Taken, out: State, theirs: str, mine: str, names: Names) -> None:
    for ours, name in zip(_ATTENTION, names[:4], strict=True):
        out[f"{mine}.attention.{ours}.weight"] = taken.take(f"{theirs}.{name}.weight")
    out[f"{mine}.attention.gain"] = taken.take(f"{theirs}.{names[4]}").reshape(())
