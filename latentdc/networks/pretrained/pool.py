"""The pool of one network that others trained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from latentdc.errors import InputError
from latentdc.hub import fetch, is_repository
from latentdc.networks.base import Network
from latentdc.networks.pool import FixedPool, fingerprint
from latentdc.networks.pretrained.backbone import Backbone
from latentdc.seeding import global_seed
from latentdc.types import DataSpec

_TORCHVISION = "torchvision:"
_WAYS = (
    'give "torchvision:resnet18" or another classifier of torchvision, a folder that save_pretrained of transformers '
    'wrote, or an owner/name on the Hub (perhaps with @revision), such as "facebook/dinov2-small"'
)


class PretrainedPool(FixedPool):
    """One network that others trained, the same at every step; a sketch is taken of it under many augmentation draws.

    Frozen, in eval mode, in float32. It sees images as its own library shows them to it: resized, cut at the centre and
    standardised by its own numbers. It has features and no class scores.

    Args:
        arch: not looked at; the model has its own.
        spec: the data the network sees.
        seed: the run's seed; the network does not depend on it.
        width: not looked at.
        model: ``"torchvision:NAME"``, an image classifier with torchvision's default weights; or a folder of
            transformers or ``owner/name@revision`` on the Hub, whose weights are safetensors and whose code is not run.
        weights: of a classifier of torchvision, a file with a state dictionary in place of the default weights.
        depths: what is shown of each depth: ``"pooled"``, the mean over all positions ``(n, d)``; ``"maps"``, the map
            ``(n, d, h, w)``, which ``attention`` looks at.

    Raises:
        InputError: no model, or a value that cannot be.
    """

    has_classifier: ClassVar[bool] = False

    def __init__(
        self,
        arch: str,
        spec: DataSpec,
        seed: int,
        width: int | None = None,
        *,
        model: str | None = None,
        weights: str | None = None,
        depths: Literal["pooled", "maps"] = "pooled",
    ) -> None:
        del arch, width
        if model is None:
            raise InputError(f"model is missing: {_WAYS}")
        if depths not in ("pooled", "maps"):
            raise InputError(f'depths = "{depths}": give "pooled" or "maps"')
        if weights is not None and not _of_torchvision(model):
            raise InputError(f'weights = "{weights}": a classifier of torchvision reads them; "{model}" has its own')
        super().__init__(model, spec, seed, 1)
        self.allows_batch_norm = True
        self.model, self.weights, self.depths = model, weights, depths

    def must_be_there(self) -> None:
        """Check the places it is to be loaded from; what is on the Hub is asked for when it is needed.

        Raises:
            InputError: there is no such file or folder.
        """
        if self.weights is not None and not Path(self.weights).is_file():
            raise InputError(
                f'source.pool.weights = "{self.weights}": there is no such file; give one with a state dictionary'
            )
        if not (_of_torchvision(self.model) or Path(self.model).is_dir() or is_repository(self.model)):
            raise InputError(f'source.pool.model = "{self.model}": there is no such folder; {_WAYS}')

    @cached_property
    def _loaded(self) -> Backbone:
        self.must_be_there()
        # What is drawn while a model is made is replaced by its weights, and must not disturb other draws.
        with global_seed(0, "pretrained"):
            net = self._load()
        net = net.eval().requires_grad_(False)
        with torch.no_grad():
            try:
                maps, _ = net.look(net.blank())
            except (RuntimeError, ValueError) as error:
                raise InputError(f'"{self.model}" cannot see images of {net.seeing.side} pixels: {error}') from error
        if net.maps and not maps:
            raise InputError(f'depths = "maps": "{self.model}" shows none; use depths = "pooled"')
        return net

    def _load(self) -> Backbone:
        """Both libraries take long to import: only the one that is needed is, and only when it is."""
        maps = self.depths == "maps"
        if _of_torchvision(self.model):
            from latentdc.networks.pretrained import from_torchvision

            weights = None if self.weights is None else Path(self.weights)
            return from_torchvision.load(self.model.removeprefix(_TORCHVISION), self.spec, weights, maps=maps)
        from latentdc.networks.pretrained import from_transformers

        folder = Path(self.model)
        return from_transformers.load(folder if folder.is_dir() else fetch(self.model, "model"), self.spec, maps=maps)

    def network(self, index: int) -> Network:
        """The network, loaded when first asked for and kept.

        Raises:
            InputError: the pool has no such network, or the model cannot be had or does not fit the data.
            BundleError: its weights are damaged.
        """
        if index != 0:
            return super().network(index)
        return self._loaded.to(self.device)

    @cached_property
    def _sha256(self) -> str:
        return fingerprint(self._loaded)

    def identity(self) -> dict[str, Any]:
        """What tells one pool from another: weights and numbers by their sha256, not by where they lie."""
        own = {"kind": type(self).__name__, "seed": self.seed, "depths": self.depths}
        return {**own, "sha256": self._sha256}

    def described(self) -> dict[str, Any]:
        """What a sketch needs to have the pool again; the weights it checks by their fingerprint."""
        own = {"model": self.model, "weights": self.weights, "depths": self.depths}
        return {**own, "seed": self.seed, "num": self.num}

    @property
    def if_another(self) -> str:
        """Why the network could be another one than it was."""
        return f'"{self.model}" has other weights or numbers now? Give those the sketch was taken with'


def _of_torchvision(model: str) -> bool:
    return model.startswith(_TORCHVISION)


def described_pool(described: Mapping[str, Any], spec: DataSpec) -> FixedPool:
    """The fixed pool that ``described`` of one described."""
    made_with = dict(described)
    if "model" not in made_with:
        return FixedPool(made_with["arch"], spec, made_with["seed"], made_with["num"], made_with["width"])
    options = {name: made_with[name] for name in ("model", "weights", "depths")}
    return PretrainedPool("", spec, made_with["seed"], **options)
