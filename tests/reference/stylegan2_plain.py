"""StyleGAN2 restated on a state dictionary with NVIDIA's names, one image at a time, to compare the module with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def dense(state: State, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = state[f"{name}.weight"] * (rate / state[f"{name}.weight"].shape[1] ** 0.5)
    return weight @ x + state[f"{name}.bias"] * rate


def unit(x: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-8).sqrt()


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 0.2 * x) * 2**0.5


def mapping(state: State, z: Tensor, label: int | None, rate: float, psi: float) -> Tensor:
    x = unit(z)
    if label is not None:
        one_hot = torch.zeros(state["mapping.embed.weight"].shape[1])
        one_hot[label] = 1
        x = torch.cat([x, unit(dense(state, "mapping.embed", one_hot))])
    number = 0
    while f"mapping.fc{number}.weight" in state:
        x = lrelu(dense(state, f"mapping.fc{number}", x, rate))
        number += 1
    return state["mapping.w_avg"] + psi * (x - state["mapping.w_avg"])


def correlate(x: Tensor, weight: Tensor) -> Tensor:
    """Sum of shifted products, image padded to keep its size minus nothing: "valid" correlation of ``(c, h, w)``."""
    outward, _, size, _ = weight.shape
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    out = torch.zeros(outward, height, width)
    for i in range(size):
        for j in range(size):
            out += torch.einsum("oc,chw->ohw", weight[:, :, i, j], x[:, i : i + height, j : j + width])
    return out


def pad(x: Tensor, before: int, after: int) -> Tensor:
    return torch.nn.functional.pad(x, (before, after, before, after))


def smooth_double(x: Tensor, before: int, after: int) -> Tensor:
    """Zeros between the pixels, then the filter [1 3 3 1]; the padding decides the size."""
    channels, height, width = x.shape
    wide = torch.zeros(channels, 2 * height, 2 * width)
    wide[:, ::2, ::2] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps) * 4
    return correlate_each(pad(wide, before, after), kernel)


def correlate_each(x: Tensor, kernel: Tensor) -> Tensor:
    return torch.cat([correlate(plane[None], kernel[None, None]) for plane in x])


def modulated(state: State, name: str, x: Tensor, w: Tensor, *, up: bool) -> Tensor:
    weight = state[f"{name}.weight"] * dense(state, f"{name}.affine", w)[None, :, None, None]
    weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if not up:
        return correlate(pad(x, 1, 1), weight)
    # Smooth first, with room for the 3x3 kernel, then convolve: a true convolution, hence the flip.
    return correlate(smooth_double(x, 3, 2), weight.flip(2, 3))


def layer(state: State, name: str, x: Tensor, w: Tensor, clamp: float | None, *, up: bool = False) -> Tensor:
    x = modulated(state, name, x, w, up=up)
    x = x + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"] + state[f"{name}.bias"][:, None, None]
    x = lrelu(x)
    return x if clamp is None else x.clamp(-clamp, clamp)


def to_image(state: State, name: str, x: Tensor, w: Tensor) -> Tensor:
    style = dense(state, f"{name}.affine", w) / x.shape[0] ** 0.5
    return correlate(x, state[f"{name}.weight"] * style[None, :, None, None]) + state[f"{name}.bias"][:, None, None]


def image(
    state: State, z: Tensor, label: int | None, *, rate: float, psi: float = 1.0, clamp: float | None = None
) -> Tensor:
    """One image ``(c, h, w)`` in nominally [0, 1]."""
    w = mapping(state, z, label, rate, psi)
    x, side = state["synthesis.b4.const"], 4
    x = layer(state, "synthesis.b4.conv1", x, w, clamp)
    shown = to_image(state, "synthesis.b4.torgb", x, w)
    while f"synthesis.b{2 * side}.const" in state or f"synthesis.b{2 * side}.conv0.weight" in state:
        side *= 2
        x = layer(state, f"synthesis.b{side}.conv0", x, w, clamp, up=True)
        x = layer(state, f"synthesis.b{side}.conv1", x, w, clamp)
        shown = smooth_double(shown, 2, 1) + to_image(state, f"synthesis.b{side}.torgb", x, w)
    return (shown + 1) / 2
