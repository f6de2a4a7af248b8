"""The BigGAN and BigGAN-deep generators as a diffusers component: torch and diffusers only.

This file is copied into every bundle that uses it, so it imports nothing from latentdc.
"""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

_TAIL = 0.022750131948179
"""Probability that a standard normal number lies below -2."""


def _doubled(x: Tensor) -> Tensor:
    """``(n, c, h, w)`` → ``(n, c, 2h, 2w)``, every pixel four times."""
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class ConditionalNorm(nn.Module):
    """Batch normalisation by stored statistics; scale and shift linear in a condition ``(n, d)``; then ReLU.

    out = relu((1 + A c) · (x - mean) / sqrt(var + eps) + B c)

    *Reference:* Brock et al. 2019, arXiv 1809.11096, §3 and appendix B.
    """

    def __init__(self, channels: int, condition: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.scale = nn.Linear(condition, channels, bias=False)
        self.shift = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise and modulate ``(n, c, h, w)``."""
        scale, shift = self.scale(condition)[:, :, None, None], self.shift(condition)[:, :, None, None]
        return functional.relu(self.norm(x) * (1 + scale) + shift)


class Attention(nn.Module):
    """Self-attention over positions, keys and values pooled 2x2, added with a learned gain.

    *Reference:* Zhang et al. 2019, arXiv 1805.08318, eq. 1 to 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.back = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` of even height and width → the same shape."""
        query = self.query(x).flatten(2)  # (n, c/8, hw)
        key = functional.max_pool2d(self.key(x), 2).flatten(2)  # (n, c/8, hw/4)
        value = functional.max_pool2d(self.value(x), 2).flatten(2)  # (n, c/2, hw/4)
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (n, hw, hw/4)
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        out: Tensor = x + self.gain * self.back(seen)
        return out


class Block(nn.Module):
    """norm → double → 3x3 → norm → 3x3, plus a doubled 1x1 shortcut; perhaps attention after it."""

    def __init__(self, inward: int, outward: int, condition: int, eps: float, attends: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(width, condition, eps) for width in (inward, outward))
        self.convs = nn.ModuleList(nn.Conv2d(width, outward, 3, padding=1) for width in (inward, outward))
        self.shortcut = nn.Conv2d(inward, outward, 1)
        self.attention = Attention(outward) if attends else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(n, inward, h, w)`` → ``(n, outward, 2h, 2w)``."""
        out = self.convs[0](_doubled(self.norms[0](x, condition)))
        out = self.convs[1](self.norms[1](out, condition)) + self.shortcut(_doubled(x))
        attended: Tensor = out if self.attention is None else self.attention(out)
        return attended


class DeepBlock(nn.Module):
    """Bottleneck of four convolutions (1x1, 3x3, 3x3, 1x1), doubling before the second where ``up``.

    The shortcut drops channels instead of mixing them.

    *Reference:* Brock et al. 2019, arXiv 1809.11096, appendix B, figure 16.
    """

    def __init__(self, widths: tuple[int, int], condition: int, eps: float, *, up: bool, attends: bool) -> None:
        super().__init__()
        inward, self.outward = widths
        inner, self.up = max(1, inward // 4), up
        self.norms = nn.ModuleList(ConditionalNorm(width, condition, eps) for width in (inward, inner, inner, inner))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, size, padding=size // 2)
            for a, b, size in ((inward, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, self.outward, 1))
        )
        self.attention = Attention(self.outward) if attends else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(n, inward, h, w)`` → ``(n, outward, h, w)``, height and width doubled where ``up``."""
        out = x
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            out = norm(out, condition)
            out = conv(_doubled(out) if self.up and number == 1 else out)
        kept = x[:, : self.outward]
        out = out + (_doubled(kept) if self.up else kept)
        return out if self.attention is None else self.attention(out)


class BigGanDecoder(ModelMixin, ConfigMixin):
    """z, class → image, spectral normalisation already folded into the weights: deterministic, row-independent.

    A block's condition is the class embedding e, with its own chunk of z where the latent is hierarchical, and with all
    of z in the deep generator. The space says what a latent is:

    - ``"z"``: ``{"z": (z_dim,)}``; the class is the row's owner;
    - ``"f<n>"``: ``f``, the activation entering block n, and ``w`` ``(blocks - n, condition)``, the conditions of the
      blocks from n on. They carry the class, so the owner no longer matters.

    There is no mapping network, hence neither w nor w+.

    Args:
        image_shape: ``(c, s, s)``; s is 4 doubled by every block, or by every second block where ``deep``.
        num_classes: number of classes k.
        z_dim: numbers of z; hierarchical, divisible by the number of blocks + 1.
        channels: feature maps entering the first block, then leaving each.
        embed_dim: numbers in a class embedding.
        attention: blocks after which self-attention follows, counted from 0.
        hierarchical: each block sees a chunk of z of its own (not with ``deep``).
        deep: BigGAN-deep's blocks; every second one, from the second on, doubles height and width.
        eps: of batch normalisation.
        truncation: z is drawn from ``truncation`` times a normal distribution cut off at ±2; None for a plain one.
        space: one of those above.

    Raises:
        ValueError: sizes that do not fit each other, or a space that does not exist.

    *Reference:* Brock et al. 2019, arXiv 1809.11096; spaces as in Cazenavette et al. 2023, arXiv 2305.01649.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("brock2019biggan", "cazenavette2023glad")

    @register_to_config
    def __init__(
        self,
        image_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        z_dim: int = 128,
        channels: Sequence[int] = (256, 256, 256, 256),
        embed_dim: int = 128,
        *,
        attention: Sequence[int] = (),
        hierarchical: bool = True,
        deep: bool = False,
        eps: float = 1e-5,
        truncation: float | None = None,
        space: str = "z",
    ) -> None:
        super().__init__()
        self.shape = tuple(int(side) for side in image_shape)
        num = len(channels) - 1
        side = 4 * 2 ** (num // 2 if deep else num)
        if num < 1 or self.shape[1:] != (side, side) or min(z_dim, num_classes, embed_dim, *channels) < 1:
            raise ValueError(
                f"image_shape {self.shape} with {num} blocks: give (c, {side}, {side}) for so many blocks (4 pixels, "
                f"doubled by every {'second ' if deep else ''}block), and sizes of at least 1."
            )
        if hierarchical and (deep or z_dim % (num + 1)):
            raise ValueError(
                f"z_dim = {z_dim} in {num + 1} chunks, deep = {deep}: a hierarchical z needs z_dim divisible by blocks "
                "+ 1 and shallow blocks; give hierarchical = False otherwise."
            )
        self.z_dim, self.chunk, self.deep = int(z_dim), z_dim // (num + 1) if hierarchical else 0, bool(deep)
        self.condition = int(embed_dim) + (z_dim if deep else self.chunk)
        self.embed = nn.Embedding(num_classes, embed_dim)
        self.first = nn.Linear(self.condition if deep else self.chunk or z_dim, channels[0] * 16)
        self.blocks = nn.ModuleList(
            DeepBlock(pair, self.condition, eps, up=number % 2 == 1, attends=number in attention)
            if deep
            else Block(*pair, self.condition, eps, number in attention)
            for number, pair in enumerate(pairwise(channels))
        )
        self.norm_out = nn.BatchNorm2d(channels[-1], eps=eps)
        self.out = nn.Conv2d(channels[-1], self.shape[0], 3, padding=1)
        self.widths = tuple(int(width) for width in channels)
        self.limit, self.space, self.start = truncation, space, self._start(space)

    def _start(self, space: str) -> int:
        """The block at which a latent of a space enters; checks that there is such a space."""
        found = re.fullmatch(r"f(\d+)", space)
        if space != "z" and not (found and int(found[1]) < len(self.blocks)):
            raise ValueError(
                f'space "{space}": this generator has z and f0 to f{len(self.blocks) - 1}; w and w+ need a mapping '
                "network, which BigGAN does not have."
            )
        return int(found[1]) if found else 0

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each latent key for one row; see the class."""
        if self.space == "z":
            return {"z": (self.z_dim,)}
        side = 4 * 2 ** (self.start // 2 if self.deep else self.start)
        activation = (self.widths[self.start], side, side)
        return {"f": activation, "w": (len(self.blocks) - self.start, self.condition)}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def in_space(self, space: str) -> "BigGanDecoder":
        """The same weights, shared with this decoder, read in another space.

        Raises:
            ValueError: there is no such space.
        """
        settings = {name: value for name, value in self.config.items() if not name.startswith("_")}
        with torch.device("meta"):
            other: BigGanDecoder = type(self)(**{**settings, "space": space})
        other.load_state_dict(self.state_dict(), assign=True)
        for mine, its in zip(self.parameters(), other.parameters(), strict=True):
            its.requires_grad_(mine.requires_grad)
        other.train(self.training)
        return other

    @torch.no_grad()
    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One draw of z per entry of ``owner`` ``(n,)``, on the generator's device, pushed into the space, fp32."""
        shape = (len(owner), self.z_dim)
        if self.limit is None:
            z = torch.randn(shape, generator=rng, device=rng.device)
        else:
            uniform = torch.rand(shape, generator=rng, device=rng.device)
            z = self.limit * torch.special.ndtri(_TAIL + (1 - 2 * _TAIL) * uniform)
        if self.space == "z":
            return {"z": z.to(owner.device)}
        x, codes = self._codes(z.to(self.device, self.dtype), owner.to(self.device))
        x = self._blocks(x, codes[:, : self.start], 0)
        return {"f": x.float().to(owner.device), "w": codes[:, self.start :].float().to(owner.device).contiguous()}

    def _codes(self, z: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """The first activation ``(n, c, 4, 4)`` and the conditions of all blocks ``(n, blocks, condition)``."""
        label, num = self.embed(owner), len(self.blocks)
        if self.chunk:
            head, own = z[:, : self.chunk], z[:, self.chunk :].unflatten(1, (num, self.chunk))
            codes = torch.cat([label[:, None].expand(-1, num, -1), own], dim=2)
        else:
            condition = torch.cat([label, z], dim=1) if self.deep else label
            head, codes = condition if self.deep else z, condition[:, None].expand(-1, num, -1)
        return self.first(head).unflatten(1, (-1, 4, 4)), codes

    def _blocks(self, x: Tensor, codes: Tensor, start: int) -> Tensor:
        """Blocks from ``start`` on, as many as there are codes."""
        for number, code in enumerate(codes.unbind(1), start):
            x = self.blocks[number](x, code)
        return x

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` in [0, 1] of latents of the space for classes ``owner`` ``(n,)``, read in z only."""
        x, codes = self._codes(z["z"], owner) if self.space == "z" else (z["f"], z["w"])
        x = self._blocks(x, codes, self.start)
        out: Tensor = (torch.tanh(self.out(functional.relu(self.norm_out(x)))) + 1) / 2
        return out
