"""A start from what an earlier run has condensed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from latentdc.bundle import load_bundle
from latentdc.bundle.identity import identity_of
from latentdc.errors import InputError
from latentdc.initialise.request import Request
from latentdc.portable.bank import LatentBank
from latentdc.types import Latents


@dataclass(frozen=True)
class Bundled:
    """The rows of a bundle of the same decoder, to go on from under another objective or at another rate.

    Of each class its first rows are taken. They start as they were stored, with the rounding of int8 or fp16; weights
    and soft labels are not taken over.

    Args:
        path: the bundle's folder.

    Raises:
        InputError: when called: another decoder, other classes, or fewer rows of a class than are asked for.
        BundleError: when called: the bundle is damaged, or its decoder somebody's own.
    """

    path: str = ""

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        if not self.path:
            raise InputError('init = "bundle" needs the bundle: give { kind = "bundle", path = "runs/first" }.')
        asked, bundle = f'init = "bundle", path = "{self.path}"', load_bundle(self.path)
        bank, ours, theirs = bundle.bank, request.decoder, bundle.decoder
        if not isinstance(bank, LatentBank):
            raise InputError(f"{asked}: it stores a distribution, not rows to start from. Give a bundle of rows.")
        if not isinstance(ours, nn.Module) or identity_of(ours) != identity_of(theirs):
            raise InputError(
                f"{asked}: its latents ({_told(bank.shapes)}) are of another decoder, or of another space or settings "
                f"of it, than this run's ({_told(ours.latent_shapes)}). Give a bundle of this decoder, or that decoder."
            )
        if request.store is not None and request.store.spec.class_names != bundle.spec.class_names:
            raise InputError(f"{asked}: it is of the classes {', '.join(bundle.spec.class_names)}.")
        pairs = zip(bundle.spec.class_names, bank.counts, request.counts, strict=True)
        short = [f"{have} of {name}" for name, have, num in pairs if have < num]
        if short:
            raise InputError(
                f"{asked}: {max(request.counts)} rows a class are asked for and it has {', '.join(short)}. Ask for as "
                "many as it has, or fewer."
            )
        firsts = [bank.rows([cls], num) for cls, num in enumerate(request.counts) if num]
        latents: Latents = bank.latents(torch.cat(firsts))
        return latents


def _told(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
