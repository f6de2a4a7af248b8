"""A small class-conditional convolutional generator as a diffusers component: torch and diffusers only.

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


class ModulatedNorm(nn.Module):
    """Batch normalisation whose scale and shift are affine in a condition ``(n, d)``; running statistics in eval mode.

    out = (1 + A c) * (x - mean) / sqrt(var + eps) + B c

    *Reference:* Chen et al. 2019, "On Self Modulation for Generative Adversarial Networks", arXiv 1810.01365, eq. 2.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.film = nn.Linear(condition, 2 * channels)
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise ``(n, c, h, w)`` and modulate each row by its condition."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class UpBlock(nn.Module):
    """norm → relu → stride-2 transposed convolution → norm → relu → 3x3 convolution, plus an upsampled shortcut."""

    def __init__(self, inward: int, outward: int, condition: int) -> None:
        super().__init__()
        self.norm_up = ModulatedNorm(inward, condition)
        self.up = nn.ConvTranspose2d(inward, outward, 4, stride=2, padding=1, bias=False)
        self.norm_mix = ModulatedNorm(outward, condition)
        self.mix = nn.Conv2d(outward, outward, 3, padding=1, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(n, inward, h, w)`` → ``(n, outward, 2h, 2w)``."""
        x = self.up(functional.relu(self.norm_up(x, condition)))
        out: Tensor = x + self.mix(functional.relu(self.norm_mix(x, condition)))
        return out


class Mapping(nn.Module):
    """z and a class embedding e → w = z + MLP([z, e]), both of ``z_dim`` numbers; starts close to the identity.

    *Reference:* Karras et al. 2019, "A Style-Based Generator Architecture for GANs", arXiv 1812.04948, §2.
    """

    def __init__(self, z_dim: int, embed_dim: int, depth: int, num_classes: int) -> None:
        super().__init__()
        width = z_dim + embed_dim
        sizes = [*[width] * depth, z_dim]
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        nn.init.normal_(layers[-1].weight, std=0.1 / width**0.5)
        self.layers = nn.ModuleList(layers)
        self.register_buffer("means", torch.zeros(num_classes, z_dim))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """``(n, z_dim)`` and embeddings ``(n, embed_dim)`` → ``(n, z_dim)``."""
        x = torch.cat([z, label], dim=1)
        for number, layer in enumerate(self.layers):
            x = layer(x if number == 0 else functional.leaky_relu(x, 0.2))
        return z + x


class GanDecoder(ModelMixin, ConfigMixin):
    """z, class → image: deterministic and row-independent in eval mode; z is standard normal.

    Every layer reads a code w, which is z or, with a mapping network, made from it, and the class embedding. Layer 0 is
    the first linear one, layers 1 to B the blocks, layer B + 1 the output. The space says what a latent is:

    - ``"z"``: ``{"z": (z_dim,)}``;
    - ``"w"``: ``{"w": (z_dim,)}``, one code for all layers, with a mapping network only;
    - ``"w+"``: ``{"w": (B + 2, z_dim)}``, one code for each, with a mapping network only;
    - ``"f<n>"``: ``f``, the activation entering block n (the output for n = B), and ``w`` ``(B + 1 - n, z_dim)``, the
      codes from there on.

    Args:
        image_shape: ``(c, h, w)``; h and w must be divisible by ``2 ** (len(channels) - 1)``.
        num_classes: number of classes k.
        z_dim: numbers in one latent.
        channels: feature maps from the coarsest to the finest level; every further level doubles height and width.
        embed_dim: numbers in a class embedding.
        mapping: layers of the mapping network; 0 for none.
        truncation: psi, which pulls w towards the mean of its class; 1 for none.
        space: one of those above.

    Raises:
        ValueError: height or width not divisible as said, a size below 1, a truncation without a mapping network, or a
            space that does not exist.

    *Reference:* Miyato & Koyama 2018, arXiv 1802.05637 (class-conditional GAN); Chen et al. 2019, arXiv 1810.01365;
    spaces as in Cazenavette et al. 2023, arXiv 2305.01649.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("miyato2018projection", "chen2019selfmodulation")

    @register_to_config
    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        z_dim: int = 16,
        channels: Sequence[int] = (128, 64, 32),
        embed_dim: int = 16,
        *,
        mapping: int = 0,
        truncation: float = 1.0,
        space: str = "z",
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.psi = int(z_dim), int(num_classes), float(truncation)
        self.shape = tuple(int(side) for side in image_shape)
        depth, height, width = self.shape
        factor = 2 ** (len(channels) - 1)
        if len(channels) < 1 or height % factor or width % factor:
            raise ValueError(
                f"image_shape {tuple(image_shape)} with {len(channels)} levels of channels: height and width must be "
                f"divisible by {factor}; give fewer channels or another size."
            )
        if min(z_dim, num_classes, embed_dim, *channels) < 1 or mapping < 0:
            raise ValueError(
                "z_dim, num_classes, embed_dim and every entry of channels must be at least 1, mapping at least 0."
            )
        if not 0 <= truncation <= 1 or (truncation != 1 and not mapping):
            raise ValueError(
                f"truncation = {truncation}: give 0 to 1 to a generator with a mapping network, whose w it pulls "
                "towards the mean of the class; without one leave it at 1."
            )
        self.base = (channels[0], height // factor, width // factor)
        condition = z_dim + embed_dim
        self.embed = nn.Embedding(num_classes, embed_dim)
        self.first = nn.Linear(condition, channels[0] * self.base[1] * self.base[2])
        self.blocks = nn.ModuleList(UpBlock(inward, outward, condition) for inward, outward in pairwise(channels))
        self.norm_out = ModulatedNorm(channels[-1], condition)
        self.out = nn.Conv2d(channels[-1], depth, 3, padding=1)
        self.mapper: Mapping | None = Mapping(z_dim, embed_dim, mapping, num_classes) if mapping else None
        self.widths, self.num_ws = tuple(int(width) for width in channels), len(self.blocks) + 2
        self.space, self.start = space, self._start(space)

    def _start(self, space: str) -> int:
        """How many codes a latent of a space has behind it where it enters; checks that there is such a space."""
        found = re.fullmatch(r"f(\d+)", space)
        if found and int(found[1]) < self.num_ws - 1:
            return int(found[1]) + 1
        codes = ("w", "w+") if self.mapper is not None else ()
        if space not in ("z", *codes):
            lacks = "" if codes else " w and w+ need a mapping network: train one with `latentdc fit gan --mapping 2`."
            raise ValueError(
                f'space "{space}": this generator has {", ".join(("z", *codes))} and f0 to f{self.num_ws - 2}.{lacks}'
            )
        return 0

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each latent key for one row; see the class."""
        if self.space in ("z", "w"):
            return {self.space: (self.z_dim,)}
        codes: dict[str, tuple[int, ...]] = {"w": (self.num_ws - self.start, self.z_dim)}
        if self.space == "w+":
            return codes
        factor = 2 ** (self.start - 1)
        return {"f": (self.widths[self.start - 1], self.base[1] * factor, self.base[2] * factor), **codes}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def in_space(self, space: str) -> "GanDecoder":
        """The same weights, shared with this decoder, read in another space.

        Raises:
            ValueError: there is no such space.
        """
        settings = {name: value for name, value in self.config.items() if not name.startswith("_")}
        with torch.device("meta"):
            other: GanDecoder = type(self)(**{**settings, "space": space})
        other.load_state_dict(self.state_dict(), assign=True)
        for mine, its in zip(self.parameters(), other.parameters(), strict=True):
            its.requires_grad_(mine.requires_grad)
        other.train(self.training)
        return other

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One standard normal z per entry of ``owner`` ``(n,)``, on the generator's device, pushed into the space."""
        z = torch.randn((len(owner), self.z_dim), generator=rng, device=rng.device, dtype=torch.float32)
        if self.space == "z":
            return {"z": z.to(owner.device)}
        with torch.no_grad():
            label = owner.to(self.device)
            return self._entering(self._code(z.to(self.device, self.dtype), label), label, owner.device)

    @torch.no_grad()
    def class_mean(self, owner: Tensor, rng: torch.Generator, num: int = 1000) -> dict[str, Tensor]:
        """The mean w of ``num`` draws of each row's class, in the space; the same for all rows of a class.

        Raises:
            ValueError: space z, or no mapping network.
        """
        if self.space == "z" or self.mapper is None:
            raise ValueError("a class mean needs a mapping network and a space other than z: see in_space().")
        classes, place = owner.to(self.device).unique(return_inverse=True)
        draws = torch.randn(len(classes), num, self.z_dim, generator=rng, device=rng.device)
        means = [
            self._code(z.to(self.device, self.dtype), c.expand(num)).mean(dim=0)
            for z, c in zip(draws, classes, strict=True)
        ]
        return self._entering(torch.stack(means)[place], owner.to(self.device), owner.device)

    def _code(self, z: Tensor, owner: Tensor) -> Tensor:
        """w ``(n, z_dim)`` of z for classes ``(n,)``."""
        if self.mapper is None:
            return z
        w: Tensor = self.mapper(z, self.embed(owner))
        return w if self.psi == 1 else torch.lerp(self.mapper.get_buffer("means")[owner], w, self.psi)

    def _entering(self, w: Tensor, owner: Tensor, device: torch.device) -> dict[str, Tensor]:
        """Codes ``(n, z_dim)`` pushed to where the space's latents enter, fp32."""
        if self.space == "w":
            return {"w": w.float().to(device)}
        codes = w[:, None].expand(-1, self.num_ws, -1)
        found = {"w": codes[:, self.start :]}
        if self.space != "w+":
            found["f"] = self._run(None, list(codes[:, : self.start].unbind(1)), owner, 0)
        return {name: found[name].float().to(device).contiguous() for name in self.latent_shapes}

    def _run(self, x: Tensor | None, codes: list[Tensor], owner: Tensor, start: int) -> Tensor:
        """Layers from ``start`` on, as many as there are codes ``(n, z_dim)``."""
        label = self.embed(owner)
        for number, code in enumerate(codes, start):
            condition = torch.cat([code, label], dim=1)
            if x is None:
                x = self.first(condition).unflatten(1, self.base)
            elif number <= len(self.blocks):
                x = self.blocks[number - 1](x, condition)
            else:
                x = torch.sigmoid(self.out(functional.relu(self.norm_out(x, condition))))
        assert x is not None  # a first layer or a latent
        return x

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` in [0, 1] of latents of the space for classes ``owner`` ``(n,)``."""
        if self.space in ("z", "w"):
            code = self._code(z["z"], owner) if self.space == "z" else z["w"]
            return self._run(None, [code] * self.num_ws, owner, 0)
        return self._run(z.get("f"), list(z["w"].unbind(1)), owner, self.start)
