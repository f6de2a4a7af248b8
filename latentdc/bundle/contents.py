"""What a loaded bundle is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from latentdc.bundle import layout
from latentdc.bundle.storage import Storage, shared_bytes, storage_of
from latentdc.decoders.components import read_json
from latentdc.latents import AnyBank
from latentdc.types import DataSpec


@dataclass(frozen=True)
class Bundle:
    """A condensed data set with all it needs to become images again, and where it came from."""

    bank: AnyBank
    decoder: Any
    """The decoder module, frozen, in eval mode."""
    spec: DataSpec
    """The data it stands for."""
    formation: Any = None
    """Turns each decoded image into several, or None."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Recipe text, data fingerprint, seeds, versions: JSON values."""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """Advice for training on the set, for instance the augmentation it was made with."""
    report: Mapping[str, Any] | None = None
    """The evaluation stored with it, if any."""
    path: Path | None = None
    """Folder it was loaded from."""
    decoder_public: str | None = None
    """Public name of the decoder, if it can be had elsewhere."""
    decoder_reference: Mapping[str, Any] | None = None
    """Where the decoder is fetched from, if the folder does not carry it: repo_id, revision, subfolder, and sha256
    of each file."""
    raw_set_bytes: int | None = None
    """Size of the real training set as uint8, where known."""

    @property
    def storage(self) -> Storage:
        """Bytes by kind; overhead counts the folder's files, so it is known once there is a folder."""
        shared = shared_bytes(self.decoder, self.formation)
        lines = storage_of(
            self.bank,
            self.spec.image_shape,
            expands=1 if self.formation is None else self.formation.expands,
            decoder_bytes=weight_bytes(self.decoder, self.formation) - shared,
            shared=shared,
            public=self.decoder_public is not None or self.decoder_reference is not None,
            carried=self.decoder_reference is None,
            raw_set=self.raw_set_bytes,
        )
        if self.path is None:
            return lines
        listed = [layout.MANIFEST, *read_json(self.path / layout.MANIFEST)["files"]]
        # What was downloaded lacks the code that the folder of its author has.
        total = sum((self.path / name).stat().st_size for name in listed if (self.path / name).is_file())
        return dataclasses.replace(lines, overhead=total - lines.weights)


def weight_bytes(*modules: ModelMixin | nn.Module | None) -> int:
    """Bytes of all stored tensors of some modules."""
    tensors = [tensor for module in modules if module is not None for tensor in module.state_dict().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
