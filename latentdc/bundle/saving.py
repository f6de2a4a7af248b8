"""Writes a bundle: all of it or nothing."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentdc import __version__
from latentdc.atomic import keep_others
from latentdc.bundle import layout, references
from latentdc.bundle.card import card_text
from latentdc.bundle.contents import Bundle
from latentdc.bundle.loading import load_bundle, verified
from latentdc.decoders.components import read_json, sha256_of
from latentdc.errors import InputError
from latentdc.latents import AnyBank
from latentdc.portable.bank import STORAGES
from latentdc.portable.pipeline import DatasetSynthesisBundle
from latentdc.types import DataSpec


def save_bundle(
    folder: str | Path,
    *,
    bank: AnyBank,
    decoder: nn.Module,
    spec: DataSpec,
    provenance: Mapping[str, Any],
    formation: nn.Module | None = None,
    hints: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    decoder_public: str | None = None,
    decoder_reference: Mapping[str, Any] | None = None,
    raw_set_bytes: int | None = None,
    picture: Path | None = None,
) -> Path:
    """Write a diffusers pipeline folder that also loads where latentdc is not installed.

    The folder appears at once and complete, or not at all: it is written beside its place and renamed. An older bundle
    in its place is replaced, and what else lies beside its files is kept; any other folder that is not empty is left
    alone.

    Args:
        folder: where to write.
        bank: the rows, or a distribution of rows, in the storage they shall have.
        decoder: decodes them; its class stands alone in its file (see ``latentdc.portable``), or is diffusers' own.
        spec: the data the set stands for.
        provenance: recipe text, data fingerprint, seeds …, JSON values; versions are added.
        formation: turns each image into several.
        hints: advice for training on the set, JSON values.
        report: an evaluation to keep beside it, JSON values.
        decoder_public: public name of the decoder, if it can be had elsewhere: it then counts as public bytes.
        decoder_reference: where the decoder is on the Hub (see ``bundle.references.reference``): the folder then names
            it instead of carrying a copy.
        raw_set_bytes: size of the real training set as uint8, for comparison.
        picture: a PNG of what the set decodes to, copied into the bundle as ``grid.png``.

    Returns:
        The folder.

    Raises:
        InputError: the parts do not fit each other, a latent is not finite, something is no JSON, the decoder's file
            does not stand alone, or the place is taken by something that is no bundle.
    """
    target = Path(folder)
    check_savable(target, decoder=decoder, formation=formation, carried=decoder_reference is None)
    _check_parts(bank, decoder, spec)
    provenance = {"versions": versions(), **provenance}
    bundle = Bundle(
        bank=bank,
        decoder=decoder,
        spec=spec,
        formation=formation,
        provenance=provenance,
        hints=dict(hints or {}),
        report=report,
        decoder_public=decoder_public,
        decoder_reference=None if decoder_reference is None else references.checked(decoder_reference),
        raw_set_bytes=raw_set_bytes,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if picture is not None:
            shutil.copyfile(picture, building / layout.PICTURE)
        _write(building, bundle)
        keep_others(target, building, {layout.MANIFEST, *layout.COMPONENTS, *layout.listed(target)})
        building.chmod(0o755)
        aside = layout.aside(target)
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            os.replace(target, aside)  # Killed before the next line, the old bundle is found again: layout.recovered.
        os.replace(building, target)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _write(folder: Path, bundle: Bundle) -> None:
    index: dict[str, Any] = {"_diffusers_version": version("diffusers")}
    for name in layout.COMPONENTS:
        named = name == "decoder" and bundle.decoder_reference is not None
        index[name] = _write_component(folder / name, None if named else getattr(bundle, name))
    if bundle.decoder_reference is not None:
        index["decoder_reference"] = dict(bundle.decoder_reference)
    index["_class_name"] = [layout.write_code(folder, "pipeline", DatasetSynthesisBundle), "DatasetSynthesisBundle"]
    index["class_names"] = list(bundle.spec.class_names)
    index["format_version"] = layout.VERSION
    layout.dump(folder / layout.INDEX, dict(sorted(index.items())))
    layout.dump(folder / layout.PROVENANCE, _facts(bundle))
    if bundle.report is not None:
        layout.dump(folder / layout.REPORT, bundle.report)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # weights are written readable by their owner only
    code = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    (folder / layout.CARD).write_text(card_text(bundle, code), encoding="utf-8")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    _write_manifest(folder, {path.relative_to(folder).as_posix(): sha256_of(path) for path in files})


def _write_component(folder: Path, module: Any) -> list[str | None]:
    """Weights, configuration and code of one component; returns its entry in ``model_index.json``."""
    if module is None:
        return [None, None]
    module.save_pretrained(str(folder), safe_serialization=True)
    config = read_json(folder / "config.json")
    config.pop("_name_or_path", None)  # a path on the machine that wrote it
    layout.dump(folder / "config.json", config)
    kind = type(module)
    if layout.is_library_class(kind):
        return [kind.__module__.split(".")[0], kind.__name__]
    return [layout.write_code(folder, f"modeling_{kind.__name__.lower()}", kind), kind.__name__]


def _facts(bundle: Bundle) -> dict[str, Any]:
    storage = bundle.storage.to_dict()
    del storage["overhead"]
    return {
        "data": asdict(bundle.spec),
        "decoder_public": bundle.decoder_public,
        "raw_set_bytes": bundle.raw_set_bytes,
        "storage": storage,
        "hints": bundle.hints,
        "provenance": bundle.provenance,
    }


def _write_manifest(folder: Path, sums: Mapping[str, str]) -> None:
    partial = folder / f"{layout.MANIFEST}.partial"
    layout.dump(partial, {"format": layout.FORMAT, "version": layout.VERSION, "files": sums})
    os.replace(partial, folder / layout.MANIFEST)


def versions() -> dict[str, str]:
    """Versions of what made a bundle."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "diffusers": version("diffusers")}
    return {"latentdc": __version__, **found}


def check_savable(folder: str | Path, *, decoder: object, formation: object = None, carried: bool = True) -> None:
    """Check what would make ``save_bundle`` refuse whatever the latents turn out to be: before the work, not after.

    Args:
        folder: where the bundle shall be.
        decoder: the decoder that shall travel in it.
        formation: the formation, or None.
        carried: whether the decoder itself goes into the bundle.

    Raises:
        InputError: the place is taken by something that is no bundle, or by one with a file beside it that would make
            the new one unreadable; or a part cannot travel.
    """
    target = layout.recovered(folder)
    if target.is_dir() and any(target.iterdir()) and not layout.is_bundle(target):
        raise InputError(
            f"{target}: exists and is no bundle; give an empty or new folder (--out), it is left as it is."
        )
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file; give a folder for the bundle (--out).")
    if added := layout.unlisted(target, layout.listed(target)):
        raise InputError(
            f"{target}: {', '.join(added)} is no part of the bundle that would be replaced (not in {layout.MANIFEST}), "
            "and no bundle is read with such a file in its folder; move it elsewhere, or choose another --out."
        )
    for name, module in (("decoder", decoder), ("formation", formation)):
        if module is None or (name == "decoder" and not carried):
            continue
        if not hasattr(module, "save_pretrained") or not getattr(module, "storable", True):
            raise InputError(
                f"{name}: a {type(module).__name__} cannot be stored; derive it from diffusers' ModelMixin, or adapt "
                'a class that can be imported: adapt("package.module:Class", …).'
            )
        if not layout.is_library_class(type(module)):
            layout.portable_source(type(module))


def _check_parts(bank: AnyBank, decoder: Any, spec: DataSpec) -> None:
    shapes = {key: tuple(shape) for key, shape in decoder.latent_shapes.items()}
    pairs = (
        ("latents of the bank", bank.shapes, "latents the decoder takes", shapes),
        ("classes of the bank", bank.num_classes, "classes of the data", spec.num_classes),
        ("images of the decoder", tuple(decoder.image_shape), "images of the data", tuple(spec.image_shape)),
    )
    for what, given, other, wanted in pairs:
        if given != wanted:
            raise InputError(f"{what}: {given}, but {other}: {wanted}; a bundle's parts must fit each other.")
    bad = [name for name, value in bank.latents().items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise InputError(
            f"latents {', '.join(bad)} hold NaN or infinite numbers; condense again from a checkpoint before."
        )


def attach_report(folder: str | Path, report: Mapping[str, Any]) -> Path:
    """Put an evaluation into a written bundle as ``report.json``, and into its manifest; returns the file.

    Every checksum is verified; no component is loaded, so neither somebody's classes nor a named decoder are needed.

    Raises:
        InputError: no such folder, or the report holds something JSON does not have.
        BundleError: the folder is no intact bundle.
    """
    root, sums = verified(folder)
    partial = root / f"{layout.REPORT}.partial"
    layout.dump(partial, report)
    others = {name: each for name, each in sums.items() if name != layout.REPORT}
    _write_manifest(root, others)  # Killed in between, the bundle has no report rather than a wrong one.
    os.replace(partial, root / layout.REPORT)
    _write_manifest(root, dict(sorted({**others, layout.REPORT: sha256_of(root / layout.REPORT)}.items())))
    return root / layout.REPORT


def requantise(
    folder: str | Path,
    out: str | Path,
    storage: str,
    *,
    classes: Sequence[type[nn.Module]] = (),
    decoder_folder: str | Path | None = None,
) -> Path:
    """Write the same set with its latents in another storage; the report is left behind, since accuracy may change.

    Args:
        folder: a bundle.
        out: where to write the new one; may be the same folder.
        storage: ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int4"``.
        classes, decoder_folder: as for ``load_bundle``.

    Raises:
        InputError: an unknown storage, or one that a distribution does not have.
        BundleError: the bundle is damaged.
    """
    if storage not in STORAGES:
        raise InputError(f'storage = "{storage}": known are {", ".join(STORAGES)}.')
    old = load_bundle(folder, classes=classes, decoder_folder=decoder_folder)
    try:
        bank = old.bank.quantise(storage)
    except ValueError as error:  # portable classes cannot know our errors
        raise InputError(f"{folder}: {error}") from error
    return save_bundle(
        out,
        bank=bank,
        decoder=old.decoder,
        formation=old.formation,
        spec=old.spec,
        provenance={**old.provenance, "requantised_from": old.bank.storage},
        hints=old.hints,
        decoder_public=old.decoder_public,
        decoder_reference=old.decoder_reference,
        raw_set_bytes=old.raw_set_bytes,
    )
