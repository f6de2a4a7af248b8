"""The README.md of a bundle: the same facts as its provenance, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentdc.bundle.contents import Bundle

_TEMPLATE = """\
---
library_name: diffusers
tags:
- latentdc
- dataset-condensation
- synthetic
---

# {name}, condensed

{rows} latents ({storage}) that decode to {images} images {shape} of {num_classes} classes. A student trained on them
stands in for one trained on the real set.

| | |
|---|---|
{facts}

## Load it without latentdc

```python
import diffusers

pipe = diffusers.DiffusionPipeline.from_pretrained("path/or/repository", trust_remote_code=True)
out = pipe(images_per_class=1, output_type="pil")   # or "pt", "np", "latent"; classes=[...] for some classes
out.images, out.labels
```

`trust_remote_code=True` runs the Python files of this folder. Read them first, or load only from people you trust:

{code}

The weights are safetensors and run nothing.

## Load it with latentdc

```python
from latentdc import load_bundle

bundle = load_bundle("path")   # checks the sha256 of every file and runs no code from the folder
```

## Storage

```
{table}
```

Classes in order: {classes}.
"""


def card_text(bundle: Bundle, code: list[str]) -> str:
    """Markdown of a bundle's card.

    Args:
        bundle: what is about to be written (its overhead is not known yet and not told).
        code: names of the Python files in the folder.
    """
    spec, bank = bundle.spec, bundle.bank
    expands = 1 if bundle.formation is None else bundle.formation.expands
    return _TEMPLATE.format(
        name=spec.name,
        rows=bank.num_rows,
        storage=bank.storage,
        images=bank.num_rows * expands,
        shape=" x ".join(map(str, spec.image_shape)),
        num_classes=spec.num_classes,
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(bundle).items()),
        code="\n".join(f"- `{name}`" for name in code),
        table="\n".join(bundle.storage.lines()),
        classes=", ".join(spec.class_names),
    )


def _facts(bundle: Bundle) -> Mapping[str, Any]:
    """One line per fact; long and nested values stay in provenance.json."""
    facts: dict[str, Any] = {
        "data": f"{bundle.spec.name}, sha256 {bundle.spec.fingerprint or 'unknown'}",
        "decoder": type(bundle.decoder).__name__
        + (f", public as {bundle.decoder_public}" if bundle.decoder_public else ", private to this bundle"),
        "formation": "none"
        if bundle.formation is None
        else f"{type(bundle.formation).__name__}, x{bundle.formation.expands}",
    }
    for name, value in bundle.provenance.items():
        if isinstance(value, Mapping) and name == "versions":
            facts[name] = ", ".join(f"{part} {number}" for part, number in value.items())
        elif isinstance(value, (str, int, float)) and "\n" not in str(value) and len(str(value)) <= 100:
            facts[name] = value
    return facts
