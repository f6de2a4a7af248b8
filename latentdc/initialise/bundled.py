"""A start from what an earlier run has condensed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from latentdc.bundle import Bundle, load_bundle
from latentdc.bundle.identity import identity_of
from latentdc.bundle.loading import verified
from latentdc.errors import BundleError, InputError
from latentdc.initialise.request import Request
from latentdc.portable.bank import LatentBank
from latentdc.types import Latents

T = TypeVar("T")


@dataclass(frozen=True)
class Bundled:
    """The rows of a bundle of the same decoder and data, to go on from under another objective or at another rate.

    Of each class its first rows are taken. They start as they were stored, with the rounding of their storage; weights,
    soft labels, and what a decoder or formation has learned with them are not taken over.

    Args:
        path: the bundle's folder.

    Raises:
        InputError: when called: another decoder or formation, other data, or fewer rows of a class than are asked for.
        BundleError: when called: the bundle is damaged, or its decoder somebody's own.
    """

    path: str = ""

    def __call__(self, request: Request) -> Latents:
        """Latents ``(s, *shape)``."""
        bundle = self._opened(load_bundle)
        self._must_fit(bundle, request)
        bank: Any = bundle.bank
        firsts = [bank.rows([cls], num) for cls, num in enumerate(request.counts) if num]
        latents: Latents = bank.latents(torch.cat(firsts))
        return latents

    def identity(self) -> dict[str, Any]:
        """The path by the sha256 of the rows that lie there.

        Raises:
            InputError, BundleError: no such bundle, or a damaged one.
        """
        _, sums = self._opened(verified)
        rows = {name: sha256 for name, sha256 in sums.items() if name.startswith("bank/") and name[-3:] != ".py"}
        return {"path": hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()}

    def told(self) -> dict[str, Any]:
        """What a bundle that is made from it says of it: the sha256 of its rows, its own recipe, steps and seconds."""
        made = self._opened(load_bundle).provenance
        own = {name: made.get(name) for name in ("recipe", "steps", "seconds")}
        return {"rows_sha256": self.identity()["path"], **own}

    def _opened(self, way: Callable[[str], T]) -> T:
        if not self.path:
            raise InputError(
                'init = "bundle" needs the bundle: give { kind = "bundle", path = "runs/first" } '
                "(--set init.kind=bundle --set init.path=runs/first)."
            )
        try:
            return way(self.path)
        except (InputError, BundleError) as error:
            raise type(error)(f"{self._asked}: {error}") from error

    @property
    def _asked(self) -> str:
        return f'init = "bundle", path = "{self.path}"'

    def _must_fit(self, bundle: Bundle, request: Request) -> None:
        asked, spec = self._asked, bundle.spec
        if not isinstance(bundle.bank, LatentBank):
            raise InputError(f"{asked}: it stores a distribution, not rows to start from. Give a bundle of rows.")
        pairs = [("decoder", bundle.decoder, request.decoder, 3), ("formation", bundle.formation, request.formation, 2)]
        for what, its, ours, num in pairs:
            if wrong := _differ(its, ours, num):
                raise InputError(
                    f"{asked}: its {what} differs from this run's in {wrong}. Give a bundle of the same {what} with "
                    "the same settings, or change this run's; what was learned with a set cannot be gone on from."
                )
        if request.store is not None and request.store.spec.fingerprint != spec.fingerprint:
            raise InputError(
                f"{asked}: it was condensed from other images ({spec.name} {spec.fingerprint[:12]}) than this run's "
                f"({request.store.spec.name} {request.store.spec.fingerprint[:12]}); with --hold-out both or neither."
            )
        if len(request.counts) != spec.num_classes:
            raise InputError(f"{asked}: it has {spec.num_classes} classes, {len(request.counts)} are asked for.")
        classes = zip(spec.class_names, bundle.bank.counts, request.counts, strict=True)
        for name, have, num in classes:
            if have < num:
                raise InputError(
                    f'{asked}: {num} rows of class "{name}" are asked for and it has {have}. Ask for no more than that.'
                )


def _differ(its: Any, ours: Any, num: int) -> str:
    """Which of the first ``num`` of class, settings and weights differ; empty if none do."""
    mine, theirs = ([None] * 3 if not isinstance(part, nn.Module) else identity_of(part) for part in (ours, its))
    names = ("class", "settings", "weights")[:num]
    return " and ".join(name for name, a, b in zip(names, mine, theirs, strict=False) if a != b)
