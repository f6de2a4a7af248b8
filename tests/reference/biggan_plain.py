"""BigGAN and BigGAN-deep restated on state dictionaries with the names of three code bases, weights normalised anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


def weight(state: State, name: str) -> Tensor:
    """The weight a layer multiplies with, spectral normalisation taken as its code base takes it when evaluating."""
    if f"{name}.weight_orig" in state:
        raw = state[f"{name}.weight_orig"]
        matrix = raw.reshape(len(raw), -1)
        return raw / (state[f"{name}.weight_u"] @ (matrix @ state[f"{name}.weight_v"]))
    raw = state[f"{name}.weight"]
    if f"{name}.u0" not in state:
        return raw
    matrix = raw.reshape(len(raw), -1)
    v = F.normalize(state[f"{name}.u0"] @ matrix)
    u = F.normalize(v @ matrix.T)
    return raw / (v @ matrix.T @ u.T).squeeze()


def conv(state: State, name: str, x: Tensor) -> Tensor:
    kernel = weight(state, name)
    return F.conv2d(x, kernel, state.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)


def norm(x: Tensor, mean: Tensor, var: Tensor, eps: float, gain: Tensor, bias: Tensor) -> Tensor:
    """Gain and bias ``(n, c)`` or ``(c,)``."""
    x = (x - mean[:, None, None]) / (var[:, None, None] + eps).sqrt()
    return x * gain[..., None, None] + bias[..., None, None]


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def attend(state: State, names: list[str], gain: Tensor, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    theta = conv(state, names[0], x).reshape(n, c // 8, h * w)
    phi = F.max_pool2d(conv(state, names[1], x), 2).reshape(n, c // 8, h * w // 4)
    g = F.max_pool2d(conv(state, names[2], x), 2).reshape(n, c // 2, h * w // 4)
    beta = torch.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
    return x + gain * conv(state, names[3], torch.bmm(g, beta.transpose(1, 2)).reshape(n, c // 2, h, w))


def biggan_pytorch(state: State, z: Tensor, label: Tensor, *, blocks: int) -> Tensor:
    def ccbn(name: str, x: Tensor, y: Tensor) -> Tensor:
        table = "shared.weight" not in state
        gain, bias = (
            state[f"{name}.{part}.weight"][label] if table else y @ weight(state, f"{name}.{part}").T
            for part in ("gain", "bias")
        )
        return norm(x, state[f"{name}.stored_mean"], state[f"{name}.stored_var"], 1e-5, 1 + gain, bias)

    y = state["shared.weight"][label] if "shared.weight" in state else None
    chunk = weight(state, "linear").shape[1]
    ys = [y] * blocks
    if z.shape[1] > chunk:
        ys = [torch.cat([y, part], 1) for part in z.split(chunk, 1)[1:]]
    h = (z[:, :chunk] @ weight(state, "linear").T + state["linear.bias"]).reshape(len(z), -1, 4, 4)
    for i in range(blocks):
        name = f"blocks.{i}.0"
        out = conv(state, f"{name}.conv1", up(ccbn(f"{name}.bn1", h, ys[i]).relu()))
        out = conv(state, f"{name}.conv2", ccbn(f"{name}.bn2", out, ys[i]).relu())
        h = out + conv(state, f"{name}.conv_sc", up(h))
        if f"blocks.{i}.1.gamma" in state:
            names = [f"blocks.{i}.1.{part}" for part in ("theta", "phi", "g", "o")]
            h = attend(state, names, state[f"blocks.{i}.1.gamma"], h)
    last = [state[f"output_layer.0.{name}"] for name in ("stored_mean", "stored_var", "gain", "bias")]
    h = norm(h, last[0], last[1], 1e-5, last[2], last[3]).relu()
    return (conv(state, "output_layer.2", h).tanh() + 1) / 2


def studiogan(state: State, z: Tensor, label: Tensor, *, entries: int) -> Tensor:
    def cbn(name: str, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = (y @ weight(state, f"{name}.{part}").T for part in ("gain", "bias"))
        return norm(x, state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"], 1e-4, 1 + gain, bias)

    y = state["shared.weight"][label]
    chunk = weight(state, "linear0").shape[1]
    parts = list(z.split(chunk, 1))
    h = (parts.pop(0) @ weight(state, "linear0").T + state["linear0.bias"]).reshape(len(z), -1, 4, 4)
    for i in range(entries):
        name = f"blocks.{i}.0"
        if f"{name}.sigma" in state:
            names = [f"{name}.conv1x1_{part}" for part in ("theta", "phi", "g", "attn")]
            h = attend(state, names, state[f"{name}.sigma"], h)
            continue
        code = torch.cat([y, parts.pop(0)], 1)
        out = conv(state, f"{name}.conv2d1", up(cbn(f"{name}.bn1", h, code).relu()))
        out = conv(state, f"{name}.conv2d2", cbn(f"{name}.bn2", out, code).relu())
        h = out + conv(state, f"{name}.conv2d0", up(h))
    last = [state[f"bn4.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    return (conv(state, "conv2d5", norm(h, last[0], last[1], 1e-4, last[2], last[3]).relu()).tanh() + 1) / 2


def pretrained(state: State, z: Tensor, label: Tensor, *, entries: int, index: int) -> Tensor:
    def bn(name: str, x: Tensor, code: Tensor) -> Tensor:
        gain, bias = (code @ weight(state, f"{name}.{part}").T for part in ("scale", "offset"))
        return norm(
            x, state[f"{name}.running_means"][index], state[f"{name}.running_vars"][index], 1e-4, 1 + gain, bias
        )

    code = torch.cat([z, state["embeddings.weight"].T[label]], 1)
    name = "generator.gen_z"
    h = (code @ weight(state, name).T + state[f"{name}.bias"]).reshape(len(z), 4, 4, -1).permute(0, 3, 1, 2)
    block = 0
    for i in range(entries):
        name = f"generator.layers.{i}"
        if f"{name}.gamma" in state:
            names = [f"{name}.snconv1x1_{part}" for part in ("theta", "phi", "g", "o_conv")]
            h = attend(state, names, state[f"{name}.gamma"], h)
            continue
        doubles = block % 2 == 1
        out = conv(state, f"{name}.conv_0", bn(f"{name}.bn_0", h, code).relu())
        out = bn(f"{name}.bn_1", out, code).relu()
        out = conv(state, f"{name}.conv_1", up(out) if doubles else out)
        out = conv(state, f"{name}.conv_2", bn(f"{name}.bn_2", out, code).relu())
        out = conv(state, f"{name}.conv_3", bn(f"{name}.bn_3", out, code).relu())
        kept = h[:, : out.shape[1]]
        h, block = out + (up(kept) if doubles else kept), block + 1
    last = [state["generator.bn.running_means"][index], state["generator.bn.running_vars"][index]]
    h = norm(h, *last, 1e-4, state["generator.bn.weight"], state["generator.bn.bias"]).relu()
    return (conv(state, "generator.conv_to_rgb", h)[:, :3].tanh() + 1) / 2
