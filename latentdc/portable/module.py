"""Any module that can be imported as a decoder: torch, diffusers and the standard library only.

This file is copied into every bundle that uses it, so it imports nothing from latentdc. The generator's own code does
not travel: its package must be importable where the bundle is decoded.
"""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

LABELS: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "none": lambda module, z, _: module(z),
    "index": lambda module, z, label: module(z, label.argmax(dim=1)),
    "one-hot": lambda module, z, label: module(z, label),
    "concatenated": lambda module, z, label: module(torch.cat([z, label], dim=1)),
}
"""How a module takes z ``(n, *z_shape)`` and the one-hot class ``(n, k)``."""


class ModuleDecoder(ModelMixin, ConfigMixin):
    """z, class → image through somebody's generator; latentdc's ``adapt`` makes one and finds its image shape.

    x = (G(z, class) - low) / (high - low). With labels ``"none"`` the class is only what the bank's rows say.

    Args:
        generator: ``"package.module:Class"``, which is imported: its code runs. Empty for one that is
            put in as ``.module`` afterwards; such a decoder cannot be stored.
        z_shape: shape of one latent, without the row axis; latents are standard normal.
        image_shape: ``(c, h, w)`` of what it makes.
        labels: ``"none"``, ``"index"``, ``"one-hot"`` or ``"concatenated"``.
        num_classes: number of classes k where the module takes them, else 0.
        output_range: of the module's images.
        arguments: named arguments of the class, JSON values.

    Raises:
        ValueError: an unknown form of label, or a name that is no importable ``nn.Module`` class.
    """

    config_name: Any = "config.json"

    @register_to_config
    def __init__(
        self,
        generator: str,
        z_shape: Sequence[int],
        image_shape: Sequence[int] = (),
        *,
        labels: str = "none",
        num_classes: int = 0,
        output_range: Sequence[float] = (-1.0, 1.0),
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if labels not in LABELS:
            raise ValueError(f'labels = "{labels}": known are {", ".join(LABELS)}')
        self.z_shape, self.num_classes, self.labels = tuple(int(side) for side in z_shape), int(num_classes), labels
        self.shape, self.output_range = tuple(int(side) for side in image_shape), tuple(output_range)
        self.module = generator_class(generator)(**dict(arguments or {})) if generator else nn.Identity()

    @property
    def storable(self) -> bool:
        """Whether its configuration says how the generator is made."""
        return bool(self.config["generator"])

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"z": z_shape}``."""
        return {"z": self.z_shape}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One standard normal latent per entry of ``owner`` ``(n,)``, drawn on the generator's device."""
        return {"z": torch.randn(len(owner), *self.z_shape, generator=rng, device=rng.device).to(owner.device)}

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)``, nominally in [0, 1], of latents ``{"z": (n, *z_shape)}`` for classes ``(n,)``."""
        label = functional.one_hot(owner, self.num_classes).to(z["z"].dtype) if self.labels != "none" else owner
        low, high = self.output_range
        x: Tensor = (LABELS[self.labels](self.module, z["z"], label) - low) / (high - low)
        return x


def generator_class(path: str) -> type[nn.Module]:
    """The class behind ``"package.module:Class"``.

    Raises:
        ValueError: it cannot be imported, or is no ``nn.Module``.
    """
    place, _, name = path.partition(":")
    try:
        found = getattr(import_module(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f'generator = "{path}": cannot be imported ({error}); install its package') from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f'generator = "{path}": is no nn.Module class')
    return found
