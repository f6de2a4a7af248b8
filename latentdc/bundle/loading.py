"""Reads a bundle with the installed classes: every file checked, no code of the folder run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from latentdc.bundle import layout, references
from latentdc.bundle.contents import Bundle
from latentdc.decoders.components import check_files, load_component, read_json
from latentdc.errors import BundleError, InputError
from latentdc.types import DataSpec


def load_bundle(
    folder: str | Path, *, classes: Sequence[type[nn.Module]] = (), decoder_folder: str | Path | None = None
) -> Bundle:
    """Load a bundle after checking version, completeness and the sha256 of every file.

    Python files in the folder are compared with their checksum and never run: components are made from the classes that
    latentdc has installed, or from those given.

    Args:
        folder: what ``save_bundle`` wrote.
        classes: component classes beyond latentdc's own, for bundles with somebody's own decoder, and generators that
            a decoder of kind ``module`` is made of.
        decoder_folder: a copy of the decoder that a bundle names instead of carrying it; None fetches it from the Hub.
            Either way weights and configuration must have the recorded sha256.

    Raises:
        InputError: no such folder.
        BundleError: no bundle, an unknown version or class, or a missing, added, changed or incomplete file.
    """
    root, sums = verified(folder)
    index, facts = read_json(root / layout.INDEX), read_json(root / layout.PROVENANCE)
    known = {**layout.CLASSES, **{kind.__name__: kind for kind in classes}}
    bank, decoder, formation = (_component(root, name, index.get(name), known) for name in layout.COMPONENTS)
    named, spec = index.get("decoder_reference"), _spec(root, facts)
    if decoder is None and named is not None:
        decoder = references.resolve(named, known, spec=spec, folder=decoder_folder)
    if bank is None or decoder is None:
        raise BundleError(f"{root}: {layout.INDEX} names no bank or no decoder; it was edited.")
    decoder.requires_grad_(False)
    return Bundle(
        bank=bank,
        decoder=decoder,
        formation=formation,
        spec=spec,
        provenance=facts.get("provenance", {}),
        hints=facts.get("hints", {}),
        report=read_json(root / layout.REPORT) if layout.REPORT in sums else None,
        path=root,
        decoder_public=facts.get("decoder_public"),
        decoder_reference=named,
        raw_set_bytes=facts.get("raw_set_bytes"),
    )


def verified(folder: str | Path) -> tuple[Path, dict[str, str]]:
    """A bundle's folder, and the sha256 of each of its files, after checking all that needs no component loaded.

    Raises:
        InputError: no such folder.
        BundleError: no bundle, an unknown version, or a missing, added or changed file.
    """
    root = layout.recovered(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of a bundle (what condensing wrote to --out).")
    if not (root / layout.MANIFEST).is_file():
        raise BundleError(
            f"{root}: has no {layout.MANIFEST}, so it is no bundle of latentdc or not all of it was copied."
        )
    manifest = read_json(root / layout.MANIFEST)
    layout.check_version(root, manifest)
    sums = manifest.get("files")
    if not isinstance(sums, dict) or not {layout.INDEX, layout.PROVENANCE} <= sums.keys():
        raise BundleError(f"{root}: {layout.MANIFEST} lists no {layout.INDEX} and {layout.PROVENANCE}; it was edited.")
    check_files(root, sums)
    if added := layout.unlisted(root, set(sums)):
        raise BundleError(
            f"{root}: {', '.join(added)} was added after the bundle was written (it is not in {layout.MANIFEST}); "
            "remove it, or copy or download the bundle again."
        )
    return root, sums


def _component(root: Path, name: str, entry: Any, known: dict[str, type[Any]]) -> Any:
    """One component by its entry ``[module, class]`` of ``model_index.json``."""
    if not isinstance(entry, list) or len(entry) != 2:
        if name == "formation" and entry is None:
            return None
        raise BundleError(f"{root}: {layout.INDEX} has {entry!r} for {name}; a pair of module and class is expected.")
    module, wanted = entry
    if wanted is None:
        return None
    kind = getattr(diffusers, str(wanted), None) if module == "diffusers" else known.get(str(wanted))
    if not (isinstance(kind, type) and issubclass(kind, ModelMixin)):
        raise BundleError(
            f"{root}: its {name} is a {wanted}, a class that latentdc does not have. Give the class "
            f"(load_bundle(folder, classes=[{wanted}])), or, if you trust the code in the folder, load it with "
            "diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)."
        )
    return load_component(kind, root / name, own=tuple(known.values()))


def _spec(root: Path, facts: dict[str, Any]) -> DataSpec:
    try:
        data = dict(facts["data"])
        for name in ("image_shape", "class_names", "mean", "std"):
            data[name] = tuple(data[name])
        return DataSpec(**data)
    except (KeyError, TypeError) as error:
        raise BundleError(f"{root}: {layout.PROVENANCE} does not describe the data ({error}).") from error
