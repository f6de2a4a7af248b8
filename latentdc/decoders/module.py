"""Any ``nn.Module`` as a decoder: its latent's shape, how it takes the class, the range of its images."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from latentdc.decoders.components import class_path
from latentdc.errors import InputError, unknown
from latentdc.portable.module import LABELS, ModuleDecoder, generator_class

RANGES = ((-1.0, 1.0), (0.0, 1.0))


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

    It decodes, is condensed through and evaluated like any other decoder. Where an importable class was given (or its
    name), folders and bundles name it with its arguments, and load again where it can be imported, by somebody who
    gives the class (``load_bundle(folder, classes=[Class])``, ``--own``): code that a file names never runs unasked.
    Of an instance or another factory nobody knows how it is made: ``save_bundle`` refuses it.

    Args:
        module: the module, a class or factory that makes it, or where to import that: ``"package.module:callable"``.
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
    made_by = None if isinstance(module, nn.Module) else _factory(module)
    made = module if made_by is None else _called(made_by, dict(arguments or {}))
    if not isinstance(made, nn.Module):
        raise InputError(f"{module}: made a {type(made).__name__}; give an nn.Module, or a factory that returns one")
    ends = [float(end) for end in output_range]
    decoder: ModuleDecoder = ModuleDecoder("", z_shape, labels=labels, num_classes=num_classes, output_range=ends)
    decoder.module = made
    decoder.eval().requires_grad_(False)
    decoder.shape = tried(decoder)
    path = "" if isinstance(module, nn.Module) else _path(type(made), made_by)
    facts = {"image_shape": list(decoder.shape), "generator": path, "arguments": dict(arguments or {})}
    decoder.register_to_config(**facts)
    return decoder


def _path(kind: type[nn.Module], factory: object) -> str:
    """Where the class can be imported, if it was called itself and can be; else nothing."""
    path = class_path(kind)
    with suppress(ValueError):
        if factory is kind and not path.startswith("__main__:") and generator_class(path) is kind:
            return path
    return ""


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


def _called(factory: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{factory} with arguments {arguments}: {error}") from error


def tried(decoder: ModuleDecoder) -> tuple[int, ...]:
    """Shape of one image, after decoding two rows twice.

    Raises:
        InputError: it does not decode them, to no images, or to others the second time.
    """
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
    if not torch.equal(x.nan_to_num(), again.nan_to_num()):
        raise InputError(
            f"{name} decodes the same latents to different images; a decoder is deterministic. Fix its noise, or make "
            "the noise part of z."
        )
    return tuple(x.shape[1:])
