"""Decoders that a bundle names instead of carrying: where on the Hub, at which commit, with which files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from latentdc.decoders.components import WEIGHTS, read_json, sha256_of
from latentdc.decoders.diffusers_folder import CONFIG, INDEX
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, InputError
from latentdc.hub import fetch, is_repository
from latentdc.types import DataSpec

KEYS = ("repo_id", "revision", "subfolder", "sha256")
SETTINGS = "settings"
"""A key that may stand beside: what the bundle reads otherwise than the repository says, such as the space."""
_SHARDS = f"{WEIGHTS}.index.json"
_SCHEDULER = "scheduler_config.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def reference(repo_id: str, folder: str | Path, *, subfolder: str = "") -> dict[str, Any]:
    """What a bundle writes down of a decoder that was fetched from the Hub.

    Args:
        repo_id: ``owner/name``.
        folder: what ``latentdc.hub.fetch`` returned: it is named by the commit.
        subfolder: where in the repository the decoder lies; empty for its top.

    Raises:
        InputError: the folder is not named by a commit, or holds no safetensors weights.
    """
    root = Path(folder)
    sums = checksums(root / subfolder)
    if not any(name.endswith(".safetensors") for name in sums):
        raise InputError(
            f"{root / subfolder}: holds no {WEIGHTS}, in one file or several, nor a pipeline's parts with theirs; a "
            "decoder is referred to by the sha256 of its safetensors weights and its configuration."
        )
    return checked({"repo_id": repo_id, "revision": root.name, "subfolder": subfolder, "sha256": sums})


def checksums(folder: Path) -> dict[str, str]:
    """sha256 of each file that decides what a decoder makes, by its path in the folder.

    Of weights it is taken of the file; of JSON of what it says, keys in order, without the notes that libraries write
    beside (``_name_or_path``, ``_diffusers_version``), which change nothing.

    Raises:
        BundleError: a configuration is no JSON object.
    """
    return {path.relative_to(folder).as_posix(): _sum(path) for path in _deciding(folder) if path.is_file()}


def _sum(path: Path) -> str:
    if path.suffix != ".json":
        return sha256_of(path)
    said = {key: value for key, value in read_json(path).items() if not key.startswith("_") or key == "_class_name"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _deciding(folder: Path) -> Iterator[Path]:
    """Where configuration and weights of a decoder may lie, or of each part that a pipeline's index names."""
    parts = [folder]
    if (folder / INDEX).is_file():
        yield folder / INDEX
        parts = [folder / name for name in sorted(read_json(folder / INDEX)) if name.isidentifier()]
    for part in parts:
        yield from (part / name for name in (CONFIG, _SCHEDULER, WEIGHTS, _SHARDS))
        if (part / _SHARDS).is_file():
            places = read_json(part / _SHARDS).get("weight_map")
            yield from (part / name for name in sorted(set(places.values()) if isinstance(places, dict) else ()))


def checked(named: Mapping[str, Any]) -> dict[str, Any]:
    """A reference with all its keys, pinned to a commit and a checksum of each file.

    A single text for ``sha256`` is that of the weights, which is all that earlier bundles wrote down.

    Raises:
        InputError: a key is missing or no text, the revision is no commit, or a checksum no sha256.
    """
    sums = named.get("sha256")
    each: Mapping[str, Any] = sums if isinstance(sums, Mapping) and sums else {WEIGHTS: sums}
    wrong = [value for value in (*(named.get(key) for key in KEYS[:3]), *each.values()) if not isinstance(value, str)]
    if wrong or set(named) - {*KEYS, SETTINGS} or not isinstance(named.get(SETTINGS, {}), Mapping):
        raise InputError(
            f"decoder_reference = {dict(named)}: give {', '.join(KEYS)}, each a text (sha256 one for each file), and "
            "nothing else."
        )
    if not is_repository(named["repo_id"]) or "@" in named["repo_id"]:
        raise InputError(f'decoder_reference.repo_id = "{named["repo_id"]}": give owner/name.')
    if not _COMMIT.fullmatch(named["revision"]):
        raise InputError(
            f'decoder_reference.revision = "{named["revision"]}": give the 40 digits of a commit; a branch or a tag '
            "may mean something else tomorrow."
        )
    for name, digits in each.items():
        if not _SHA256.fullmatch(digits):
            raise InputError(f'decoder_reference.sha256 of {name} = "{digits}": give 64 hexadecimal digits.')
    if Path(named["subfolder"]).is_absolute() or ".." in Path(named["subfolder"]).parts:
        raise InputError(f'decoder_reference.subfolder = "{named["subfolder"]}": give a folder in the repository.')
    return {key: named[key] for key in (*KEYS, SETTINGS) if key in named}


def resolve(
    named: Any, known: Mapping[str, type[Any]], *, spec: DataSpec | None = None, folder: str | Path | None = None
) -> ModelMixin:
    """The decoder a bundle names, fetched (or read from ``folder``) and checked; no code of the repository runs.

    Args:
        named: the bundle's ``decoder_reference``.
        known: component classes by name, beyond those that ``load_decoder`` finds.
        spec: the data it decodes, for models of diffusers, which make images of many sizes.
        folder: a copy of the decoder on this machine; None fetches it.

    Raises:
        BundleError: the reference is malformed, weights or configuration are not those the bundle was made with, or
            the decoder cannot be loaded.
        InputError: the Hub did not give it.
    """
    try:
        wanted = checked(named if isinstance(named, Mapping) else {})
    except InputError as error:
        raise BundleError(f"the bundle's decoder cannot be found: {error}") from error
    where = Path(folder) if folder is not None else _fetched(wanted)
    _compare(where, wanted)
    try:
        return load_decoder(where, spec, settings=wanted.get(SETTINGS), classes=tuple(known.values()))
    except InputError as error:
        raise BundleError(f"the bundle's decoder cannot be read as it was: {error}") from error


def _fetched(wanted: Mapping[str, Any]) -> Path:
    """The decoder's folder at its commit; of a whole pipeline only the subfolder is downloaded."""
    inside: str = wanted["subfolder"]
    return fetch(wanted["repo_id"], "decoder", revision=wanted["revision"], subfolder=inside) / inside


def _compare(where: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a decoder of which a file is missing, added, or not the one that the bundle was made with."""
    found, recorded = checksums(where), wanted["sha256"]
    if isinstance(recorded, str):
        recorded = {WEIGHTS: recorded}
        found = {name: each for name, each in found.items() if name.endswith(".safetensors")}
    if missing := sorted(recorded.keys() - found.keys()):
        raise BundleError(f"{where}: {', '.join(missing)} is missing; the bundle needs the decoder {_name(wanted)}.")
    for name in sorted(found):
        if found[name] != recorded.get(name):
            was = f"not {recorded[name][:12]}…" if name in recorded else "and the bundle knows no such file"
            raise BundleError(
                f"{where}: this is not the decoder that the bundle was made with ({_name(wanted)}): the sha256 of "
                f"{name} is {found[name][:12]}…, {was}. Its images would be others."
            )


def _name(wanted: Mapping[str, Any]) -> str:
    return "/".join(part for part in (f"{wanted['repo_id']}@{wanted['revision'][:12]}", wanted["subfolder"]) if part)
