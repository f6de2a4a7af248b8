"""The README.md of a bundle: the same facts as its provenance, for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from latentdc.bundle.contents import Bundle
from latentdc.bundle.layout import CLASSES, is_library_class
from latentdc.decoders.components import class_path
from latentdc.hub import is_repository
from latentdc.portable.distribution import DistributionBank
from latentdc.portable.module import ModuleDecoder

_TEMPLATE = """\
---
{front}
---

# {name}, condensed

{what} {shape} of {num_classes} classes. A student trained on
them stands in for one trained on the real set.

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
from latentdc import load_bundle{imports}

bundle = load_bundle("path"{given})   # checks the sha256 of every file and runs no code from the folder
```

## Storage

```
{table}
```

Classes in order: {classes}.
{figures}"""


_ROW = {"name", "basis", "student", "images_per_class", "bytes_per_class", "runs"}


def card_text(bundle: Bundle, code: list[str]) -> str:
    """Markdown of a bundle's card.

    Args:
        bundle: what is about to be written (its overhead is not known yet and not told).
        code: names of the Python files in the folder.
    """
    spec = bundle.spec
    imports, names = in_python(borrowed(bundle.decoder, bundle.formation))
    return _TEMPLATE.format(
        imports=imports,
        given=f", classes=[{names}]" if names else "",
        front="\n".join(_front(bundle)),
        figures=_figures(bundle.report),
        name=spec.name,
        what=_what(bundle),
        shape=" x ".join(map(str, spec.image_shape)),
        num_classes=spec.num_classes,
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(bundle).items()),
        code="\n".join(f"- `{name}`" for name in code),
        table="\n".join(bundle.storage.lines()),
        classes=", ".join(spec.class_names),
    )


def borrowed(*parts: Any) -> tuple[str, ...]:
    """``package.module:Class`` of each class that parts are made of and latentdc lacks: whoever loads them gives it."""
    found = []
    for part in parts:
        if isinstance(part, ModuleDecoder):
            found.append(str(part.config["generator"]))
        elif part is not None and type(part).__name__ not in CLASSES and not is_library_class(type(part)):
            found.append(class_path(type(part)))
    return tuple(found)


def in_python(paths: Iterable[str]) -> tuple[str, str]:
    """What an example adds to give such classes: lines that import them, and their names."""
    pairs = [path.split(":") for path in paths]
    return "".join(f"\nfrom {module} import {name}" for module, name in pairs), ", ".join(name for _, name in pairs)


def _what(bundle: Bundle) -> str:
    """What is stored and what comes out of it, up to the images' shape."""
    bank, expands = bundle.bank, 1 if bundle.formation is None else bundle.formation.expands
    if isinstance(bank, DistributionBank):
        return (
            f"Per class the mean and deviation of latents ({bank.storage}), from which any number of images is drawn, "
            f"{bank.num_rows * expands} where no number is asked for: images"
        )
    return f"{bank.num_rows} latents ({bank.storage}) that decode to {bank.num_rows * expands} images"


def _front(bundle: Bundle) -> list[str]:
    """The lines of YAML that the Hub reads: how to load it, what it stands for, which decoder it builds on."""
    lines = ["library_name: diffusers"]
    if licence := bundle.provenance.get("license"):
        lines.append(f"license: {json.dumps(licence)}")
    if bundle.decoder_reference is not None:
        lines += ["base_model:", f"- {bundle.decoder_reference['repo_id']}"]
    elif bundle.decoder_public is not None and is_repository(bundle.decoder_public):
        lines += ["base_model:", f"- {bundle.decoder_public.partition('@')[0]}"]
    lines += ["tags:", "- latentdc", "- dataset-condensation", "- synthetic", f"- {json.dumps(bundle.spec.name)}"]
    return lines


def _figures(report: Mapping[str, Any] | None) -> str:
    """A table of the evaluation's rows; empty where there is none."""
    # A report is whatever JSON the user kept: only rows as an evaluation writes them are shown.
    rows = [
        row for row in (report or {}).get("rows", []) if isinstance(row, Mapping) and row.keys() >= _ROW and row["runs"]
    ]
    if not rows:
        return ""
    head = "| set | student | images per class | bytes per class | accuracy, % | runs |\n|---|---|---|---|---|---|"
    lines = []
    for row in rows:
        found = [run["accuracy"] for run in row["runs"]]
        spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
        lines.append(
            f"| {row['name']} ({row['basis']}) | {row['student']} | {row['images_per_class']:g} | "
            f"{row['bytes_per_class']:,.0f} | {statistics.fmean(found):.1f}{spread} | {len(found)} |"
        )
    return "\n".join(["", "## Figures", "", head, *lines, ""])


def _facts(bundle: Bundle) -> Mapping[str, Any]:
    """One line per fact; long and nested values stay in provenance.json."""
    facts: dict[str, Any] = {
        "data": f"{bundle.spec.name}, sha256 {bundle.spec.fingerprint or 'unknown'}",
        "decoder": type(bundle.decoder).__name__ + _made_of(bundle) + _whose(bundle),
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


def _made_of(bundle: Bundle) -> str:
    """The package that has to be installed wherever the bundle is decoded, if any."""
    config = getattr(bundle.decoder, "config", {})
    return f" of `{config['generator']}`, whose package must be installed" if "generator" in config else ""


def _whose(bundle: Bundle) -> str:
    named = bundle.decoder_reference
    if named is not None:
        where = "/".join(part for part in (named["repo_id"], named["subfolder"]) if part)
        return f", not in this folder: {where} at commit {named['revision']}"
    return f", public as {bundle.decoder_public}" if bundle.decoder_public else ", private to this bundle"
