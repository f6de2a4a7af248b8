"""What tells one decoder or formation from another."""

from __future__ import annotations

import json

from torch import nn

from latentdc.networks import fingerprint


def identity_of(module: nn.Module) -> list[object]:
    """Class, settings and the sha256 of the weights of a decoder or formation: JSON values."""
    settings = {name: value for name, value in getattr(module, "config", {}).items() if not name.startswith("_")}
    # Code that travels in a bundle is loaded as a file whose name holds the hash of its text.
    code = f"{type(module).__module__.rpartition('.')[2]}.{type(module).__name__}"
    return [code, json.loads(json.dumps(settings, sort_keys=True, default=str)), fingerprint(module)]
