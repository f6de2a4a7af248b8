"""The StyleGAN2 generator, written from the papers in plain torch, as a diffusers component: torch and diffusers only.

This file is copied into every bundle that uses it, so it imports nothing from latentdc.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-8


def _unit(x: Tensor) -> Tensor:
    """Rows ``(n, d)`` scaled to a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _EPS)


def _kernel(like: Tensor, channels: int) -> Tensor:
    """The low-pass filter [1 3 3 1] ⊗ [1 3 3 1] / 16, which keeps the mean when height and width double."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=like.dtype, device=like.device) / 4
    return torch.outer(taps, taps).expand(channels, 1, 4, 4)


def _doubled(x: Tensor) -> Tensor:
    """``(n, c, h, w)`` → ``(n, c, 2h, 2w)``: zeros between the pixels, then the low-pass filter."""
    return functional.conv_transpose2d(x, _kernel(x, x.shape[1]), stride=2, padding=1, groups=x.shape[1])


class Dense(nn.Module):
    """Linear layer with an equalised learning rate: y = x (rate · W / sqrt(d))ᵀ + rate · b, then leaky ReLU if asked.

    *Reference:* Karras et al. 2018, arXiv 1710.10196, §4.1.
    """

    def __init__(self, inward: int, outward: int, *, rate: float = 1.0, active: bool = False, bias: float = 0) -> None:
        super().__init__()
        self.gain, self.rate, self.active = rate / math.sqrt(inward), rate, active
        self.weight = nn.Parameter(torch.randn(outward, inward) / rate)
        self.bias = nn.Parameter(torch.full((outward,), float(bias)))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inward)`` → ``(n, outward)``."""
        out = functional.linear(x, self.weight * self.gain, self.bias * self.rate)
        return functional.leaky_relu(out, 0.2) * math.sqrt(2) if self.active else out


class Mapping(nn.Module):
    """z and, where there are classes, an embedding of the class → w; pulled towards the mean w by truncation.

    w = m + psi · (f(z, y) - m)

    *Reference:* Karras et al. 2019, arXiv 1812.04948, §2, appendix B; classes: 2020, arXiv 2006.06676.
    """

    def __init__(self, z_dim: int, w_dim: int, widths: Sequence[int], num_classes: int, rate: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed: Dense | None = Dense(num_classes, w_dim) if num_classes else None
        sizes = [z_dim + (w_dim if num_classes else 0), *widths, w_dim]
        self.layers = nn.ModuleList(Dense(a, b, rate=rate, active=True) for a, b in pairwise(sizes))
        self.register_buffer("mean", torch.zeros(w_dim))

    def forward(self, z: Tensor, owner: Tensor, psi: float) -> Tensor:
        """``(n, z_dim)`` and classes ``(n,)`` → ``(n, w_dim)``."""
        x = _unit(z)
        if self.embed is not None:
            label = functional.one_hot(owner, self.num_classes).to(z.dtype)
            x = torch.cat([x, _unit(self.embed(label))], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x if psi == 1 else torch.lerp(self.get_buffer("mean").expand_as(x), x, psi)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style s = A w, its outputs then brought back to unit variance.

    y_j = d_j · Σ_i W_ji ∗ (s_i x_i) + b_j,   d_j = 1 / sqrt(Σ_ik (s_i W_jik)² + eps), or 1 for the 1x1 image outputs

    *Reference:* Karras et al. 2020, arXiv 1912.04958, eq. 1 and 3.
    """

    def __init__(self, inward: int, outward: int, size: int, w_dim: int, *, up: bool = False) -> None:
        super().__init__()
        self.up, self.demodulate = up, size > 1
        self.gain = 1.0 if self.demodulate else 1 / math.sqrt(inward)
        self.style = Dense(w_dim, inward, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outward, inward, size, size))
        self.bias = nn.Parameter(torch.zeros(outward, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``(n, inward, h, w)`` under codes ``(n, w_dim)``; height and width double where ``up``."""
        style = self.style(w) * self.gain
        x = x * style[:, :, None, None]
        if self.up:  # doubling and convolution in one, then the low-pass filter
            x = functional.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = functional.conv2d(x, _kernel(x, x.shape[1]), padding=1, groups=x.shape[1])
        else:
            x = functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulate:
            power = functional.linear(style.square(), self.weight.square().sum(dim=(2, 3)))
            x = x * torch.rsqrt(power + _EPS)[:, :, None, None]
        return x + self.bias


class Layer(nn.Module):
    """Modulated 3x3 convolution with bias, constant noise, leaky ReLU."""

    def __init__(self, inward: int, outward: int, side: int, w_dim: int, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inward, outward, 3, w_dim, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(side, side))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``(n, inward, h, w)`` → ``(n, outward, side, side)`` under codes ``(n, w_dim)``."""
        return functional.leaky_relu(self.conv(x, w) + self.strength * self.get_buffer("noise"), 0.2) * math.sqrt(2)


class StyleGan2Decoder(ModelMixin, ConfigMixin):
    """z (and class) → w → image, with skip outputs and constant noise: deterministic and row-independent.

    Layer 0 is the convolution after the constant, layer ``num_ws - 1`` the last image output. The spaces:

    - ``"z"``: ``{"z": (z_dim,)}``;
    - ``"w"``: ``{"w": (w_dim,)}``, one code for all layers;
    - ``"w+"``: ``{"w": (num_ws, w_dim)}``, one code for each;
    - ``"f<n>"``: ``f``, the activation entering layer n, ``w``, the codes from n on, and from n = 2 on ``skip``, the
      sum of the image outputs so far, which no later layer could restore.

    The class enters through the mapping only: in every space but z the latents carry it. Images are not clamped.

    Args:
        image_shape: ``(c, s, s)`` with s = 4 · 2^(levels - 1).
        num_classes: classes of the mapping; 0 for a generator without.
        z_dim: numbers of z.
        w_dim: numbers of one code w.
        channels: feature maps at 4x4, 8x8, …, one entry a level.
        mapping: widths of the mapping's layers but the last, which has ``w_dim``.
        rate: learning-rate multiplier of the mapping.
        clamp: bound of activations, or None.
        truncation: psi; 1 for none.
        space: one of those above.

    Raises:
        ValueError: sizes that do not fit each other, or a space that does not exist.

    *Reference:* Karras et al. 2020, arXiv 1912.04958; spaces as in Cazenavette et al. 2023, arXiv 2305.01649.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("karras2019stylegan", "karras2020stylegan2", "karras2020ada")

    @register_to_config
    def __init__(
        self,
        image_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 0,
        z_dim: int = 512,
        w_dim: int = 512,
        channels: Sequence[int] = (512, 512, 512, 512),
        *,
        mapping: Sequence[int] = (512,) * 7,
        rate: float = 0.01,
        clamp: float | None = None,
        truncation: float = 1.0,
        space: str = "z",
    ) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in image_shape)
        depth, sides = self.shape[0], [4 * 2**level for level in range(len(channels))]
        if not channels or self.shape[1:] != (sides[-1],) * 2 or min(z_dim, w_dim, depth, *channels) < 1:
            raise ValueError(
                f"image_shape {self.shape} with {len(channels)} levels of channels: give (c, s, s) with "
                "s = 4 * 2 ** (levels - 1), and sizes of at least 1."
            )
        self.z_dim, self.w_dim, self.clamp, self.psi = int(z_dim), int(w_dim), clamp, float(truncation)
        self.mapper = Mapping(z_dim, w_dim, mapping, num_classes, rate)
        self.constant = nn.Parameter(torch.randn(channels[0], 4, 4))
        levels = [(n + 1) // 2 for n in range(2 * len(channels) - 1)]
        self.layers = nn.ModuleList(
            Layer(channels[level - n % 2], channels[level], sides[level], w_dim, up=n % 2 == 1)
            for n, level in enumerate(levels)
        )
        self.outputs = nn.ModuleList(ModulatedConv(width, depth, 1, w_dim) for width in channels)
        self.num_ws, self.widths = len(self.layers) + 1, tuple(int(width) for width in channels)
        self.space, self.start = space, self._start(space)

    def _start(self, space: str) -> int:
        """The layer at which a latent of a space enters; checks that there is such a space."""
        found = re.fullmatch(r"f(\d+)", space)
        if found and int(found[1]) < self.num_ws:
            return int(found[1])
        if space not in ("z", "w", "w+"):
            raise ValueError(f'space "{space}": this generator has z, w, w+ and f0 to f{self.num_ws - 1}.')
        return 0

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each latent key for one row; see the class."""
        if self.space in ("z", "w"):
            return {self.space: (self.z_dim if self.space == "z" else self.w_dim,)}
        codes: dict[str, tuple[int, ...]] = {"w": (self.num_ws - self.start, self.w_dim)}
        if self.space == "w+":
            return codes
        side = 4 * 2 ** (self.start // 2)
        activation = {"f": (self.widths[self.start // 2], side, side)}
        shown = 4 * 2 ** (self.start // 2 - 1)
        skip = {"skip": (self.shape[0], shown, shown)} if self.start >= 2 else {}
        return {**activation, **skip, **codes}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def in_space(self, space: str) -> "StyleGan2Decoder":
        """The same weights, shared with this decoder, read in another space.

        Raises:
            ValueError: there is no such space.
        """
        settings = {name: value for name, value in self.config.items() if not name.startswith("_")}
        with torch.device("meta"):
            other: StyleGan2Decoder = type(self)(**{**settings, "space": space})
        other.load_state_dict(self.state_dict(), assign=True)
        for mine, its in zip(self.parameters(), other.parameters(), strict=True):
            its.requires_grad_(mine.requires_grad)
        other.train(self.training)
        return other

    @torch.no_grad()
    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One standard normal z per entry of ``owner`` ``(n,)``, on the generator's device, pushed into the space."""
        z = torch.randn(len(owner), self.z_dim, generator=rng, device=rng.device).to(owner.device)
        if self.space == "z":
            return {"z": z}
        return self._entering(self._mapped(z, owner), owner.device)

    @torch.no_grad()
    def class_mean(self, owner: Tensor, rng: torch.Generator, num: int = 1000) -> dict[str, Tensor]:
        """The mean w of ``num`` draws of each row's class, in the space; the same for all rows of a class.

        Raises:
            ValueError: space z, where a mean is no likely latent.
        """
        if self.space == "z":
            raise ValueError("space z has no class mean: take in_space('w'), 'w+' or 'f<n>'.")
        classes, place = owner.unique(return_inverse=True)
        draws = torch.randn(len(classes), num, self.z_dim, generator=rng, device=rng.device)
        means = [self._mapped(z, c.expand(num)).mean(dim=0) for z, c in zip(draws, classes, strict=True)]
        return self._entering(torch.stack(means)[place.to(self.device)], owner.device)

    def _mapped(self, z: Tensor, owner: Tensor) -> Tensor:
        w: Tensor = self.mapper(z.to(self.device, self.dtype), owner.to(self.device), self.psi)
        return w

    def _entering(self, w: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Codes ``(n, w_dim)`` pushed to where the space's latents enter."""
        if self.space == "w":
            return {"w": w.float().to(device)}
        codes = w[:, None].expand(-1, self.num_ws, -1)
        found = {"w": codes[:, self.start :]}
        if self.space != "w+":
            x, image = self._run(self.constant.expand(len(w), -1, -1, -1), None, codes[:, : self.start], 0)
            found |= {"f": x} if image is None else {"f": x, "skip": image}
        return {name: found[name].float().to(device).contiguous() for name in self.latent_shapes}

    def _run(self, x: Tensor, image: Tensor | None, codes: Tensor, start: int) -> tuple[Tensor, Tensor | None]:
        """As many layers as there are codes ``(n, layers, w_dim)``; an image output reads the next layer's code."""
        for number, code in enumerate(codes.unbind(1), start):
            if number % 2:
                shown = self._bounded(self.outputs[number // 2](x, code))
                image = shown if image is None else shown + _doubled(image)
            if number < len(self.layers):
                x = self._bounded(self.layers[number](x, code))
        return x, image

    def _bounded(self, x: Tensor) -> Tensor:
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)``, nominally in [0, 1], of latents; ``owner`` ``(n,)`` matters in space z only."""
        codes = self.mapper(z["z"], owner, self.psi) if self.space == "z" else z["w"]
        if codes.ndim == 2:
            codes = codes[:, None].expand(-1, self.num_ws, -1)
        x = z["f"] if "f" in z else self.constant.expand(len(codes), -1, -1, -1)
        _, image = self._run(x, z.get("skip"), codes, self.start)
        assert image is not None  # the last layer is an image output
        return (image + 1) / 2
