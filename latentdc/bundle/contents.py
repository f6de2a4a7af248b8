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
from latentdc.portable.bank import LatentBank
from latentdc.types import DataSpec


@dataclass(frozen=True)
class Bundle:
    """A condensed data set with all it needs to become images again, and where it came from."""

    bank: LatentBank
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
            public=self.decoder_public is not None,
            raw_set=self.raw_set_bytes,
        )
        if self.path is None:
            return lines
        listed = [layout.MANIFEST, *read_json(self.path / layout.MANIFEST)["files"]]
        total = sum((self.path / name).stat().st_size for name in listed)
        known = lines.payload + lines.private_decoder + lines.public_decoder
        return dataclasses.replace(lines, overhead=total - known)


def weight_bytes(*modules: ModelMixin | nn.Module | None) -> int:
    """Bytes of all stored tensors of some modules."""
    tensors = [tensor for module in modules if module is not None for tensor in module.state_dict().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
