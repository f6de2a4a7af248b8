"""Any ``nn.Module`` as a decoder: its latent's shape, how it takes the class, the range of its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentdc.errors import InputError, unknown
from latentdc.types import Latents

LABELS: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "none": lambda module, z, _: module(z),
    "index": lambda module, z, label: module(z, label.argmax(dim=1)),
    "one-hot": lambda module, z, label: module(z, label),
    "concatenated": lambda module, z, label: module(torch.cat([z, label], dim=1)),
}
"""How a module takes z ``(n, *z_shape)`` and the one-hot class ``(n, k)``."""
RANGES = ((-1.0, 1.0), (0.0, 1.0))


class ModuleDecoder(nn.Module):
    """An adapted module; made by ``adapt``. With labels ``"none"`` the class is only what the bank's rows say.

    It decodes, is condensed through and evaluated like any other decoder. A bundle carries code, and the code of an
    adapted module is spread over files that latentdc does not know: ``save_bundle`` refuses it. To bundle, write the
    generator as a component in a file of its own (``examples/own_decoder.py``).
    """

    def __init__(
        self,
        module: nn.Module,
        z_shape: Sequence[int],
        num_classes: int,
        labels: str,
        output_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.module, self.labels, self.output_range = module, labels, output_range
        self.z_shape, self.num_classes = tuple(int(side) for side in z_shape), num_classes
        self.shape: tuple[int, ...] = ()

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"z": z_shape}``."""
        return {"z": self.z_shape}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def prior(self, owner: Tensor, rng: torch.Generator) -> Latents:
        """One standard normal latent per entry of ``owner`` ``(n,)``, drawn on the generator's device."""
        return {"z": torch.randn(len(owner), *self.z_shape, generator=rng, device=rng.device).to(owner.device)}

    def forward(self, z: Latents, owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)``, nominally in [0, 1], of latents ``{"z": (n, *z_shape)}`` for classes ``(n,)``."""
        label = functional.one_hot(owner, self.num_classes).to(z["z"].dtype) if self.labels != "none" else owner
        low, high = self.output_range
        x: Tensor = (LABELS[self.labels](self.module, z["z"], label) - low) / (high - low)
        return x


def adapt(
    module: nn.Module | Callable[..., nn.Module] | str,
    z_shape: Sequence[int],
    *,
    labels: str = "none",
    num_classes: int = 0,
    output_range: tuple[float, float] = (-1.0, 1.0),
    arguments: Mapping[str, Any] | None = None,
) -> ModuleDecoder:
    """A generator of your own as a decoder, frozen and in eval mode.

    Args:
        module: the module, a factory that makes it, or where to import the factory: ``"package.module:callable"``.
        z_shape: shape of one latent, without the row axis; latents are standard normal.
        labels: how the module takes the class: ``"none"`` (unconditional), ``"index"`` (second argument, int64),
            ``"one-hot"`` (second argument), ``"concatenated"`` (one-hot after a flat z).
        num_classes: number of classes k, where the module takes them.
        output_range: of its images: ``(-1, 1)`` or ``(0, 1)``.
        arguments: named arguments for the factory.

    Raises:
        InputError: no such factory, no module, options that do not fit, or a module that does not map ``(n, *z_shape)``
            to images ``(n, c, h, w)``, the same ones each time.
    """
    if labels not in LABELS:
        raise InputError(f"labels = {unknown('form of label', labels, LABELS)}")
    if (labels != "none") != (num_classes > 0):
        raise InputError(f'labels = "{labels}", num_classes = {num_classes}: give both, or "none" and 0')
    if tuple(output_range) not in RANGES:
        raise InputError(f"output_range = {output_range}: give (-1, 1) or (0, 1)")
    if labels == "concatenated" and len(z_shape) != 1:
        raise InputError(f"z_shape = {tuple(z_shape)}: a class is concatenated to a flat latent only; give (d,)")
    made = module if isinstance(module, nn.Module) else _factory(module)(**dict(arguments or {}))
    if not isinstance(made, nn.Module):
        raise InputError(f"{module}: made a {type(made).__name__}; give an nn.Module, or a factory that returns one")
    low, high = output_range
    decoder = ModuleDecoder(made, z_shape, num_classes, labels, (float(low), float(high)))
    decoder.eval().requires_grad_(False)
    decoder.shape = _tried(decoder)
    return decoder


def _factory(given: Callable[..., nn.Module] | str) -> Callable[..., nn.Module]:
    if not isinstance(given, str):
        return given
    place, _, name = given.partition(":")
    try:
        found = getattr(import_module(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f'"{given}": cannot be imported ({error}); give "package.module:callable".') from error
    if not callable(found):
        raise InputError(f'"{given}": is a {type(found).__name__}; give something that can be called.')
    made: Callable[..., nn.Module] = found
    return made


def _tried(decoder: ModuleDecoder) -> tuple[int, ...]:
    """Shape of one image, after decoding two rows twice."""
    owner = torch.zeros(2, dtype=torch.int64)
    z = decoder.prior(owner, torch.Generator().manual_seed(0))
    name = type(decoder.module).__name__
    try:
        with torch.no_grad():
            x, again = decoder(z, owner), decoder(z, owner)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f'{name} does not decode latents (n, {", ".join(map(str, decoder.z_shape))}) with labels = "'
            f'{decoder.labels}": {error}. Change z_shape or labels.'
        ) from error
    if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != 2:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} makes {shape} of two latents; images (2, c, h, w) are expected. Wrap its forward.")
    if not torch.equal(x, again):
        raise InputError(
            f"{name} decodes the same latents to different images; a decoder is deterministic. Fix its noise, or make "
            "the noise part of z."
        )
    return tuple(x.shape[1:])
