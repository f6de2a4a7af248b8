"""Decoders that a bundle names instead of carrying: where on the Hub, at which commit, with which weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from diffusers.models.modeling_utils import ModelMixin

from latentdc.decoders.components import WEIGHTS, load_component, read_json, sha256_of
from latentdc.decoders.reference import load_decoder
from latentdc.decoders.settings import configured
from latentdc.errors import BundleError, InputError
from latentdc.hub import WANTED, fetch, is_repository
from latentdc.types import DataSpec

KEYS = ("repo_id", "revision", "subfolder", "sha256")
SETTINGS = "settings"
"""A key that may stand beside: what the bundle reads otherwise than the repository says, such as the space."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def reference(repo_id: str, folder: str | Path, *, subfolder: str = "") -> dict[str, str]:
    """What a bundle writes down of a decoder that was fetched from the Hub.

    Args:
        repo_id: ``owner/name``.
        folder: what ``latentdc.hub.fetch`` returned: it is named by the commit.
        subfolder: where in the repository the decoder lies; empty for its top.

    Raises:
        InputError: the folder is not named by a commit, or holds no safetensors weights.
    """
    root = Path(folder)
    weights = root / subfolder / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; a decoder is referred to by the sha256 of its safetensors weights.")
    pinned = {"repo_id": repo_id, "revision": root.name, "subfolder": subfolder, "sha256": sha256_of(weights)}
    return checked(pinned)


def checked(named: Mapping[str, Any]) -> dict[str, Any]:
    """A reference with all its keys, pinned to a commit and a checksum.

    Raises:
        InputError: a key is missing or no text, the revision is no commit, or the checksum no sha256.
    """
    wrong = [key for key in KEYS if not isinstance(named.get(key), str)]
    if wrong or set(named) - {*KEYS, SETTINGS} or not isinstance(named.get(SETTINGS, {}), Mapping):
        raise InputError(f"decoder_reference = {dict(named)}: give {', '.join(KEYS)}, each a text, and nothing else.")
    if not is_repository(named["repo_id"]) or "@" in named["repo_id"]:
        raise InputError(f'decoder_reference.repo_id = "{named["repo_id"]}": give owner/name.')
    if not _COMMIT.fullmatch(named["revision"]):
        raise InputError(
            f'decoder_reference.revision = "{named["revision"]}": give the 40 digits of a commit; a branch or a tag '
            "may mean something else tomorrow."
        )
    if not _SHA256.fullmatch(named["sha256"]):
        raise InputError(f'decoder_reference.sha256 = "{named["sha256"]}": give 64 hexadecimal digits.')
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
        BundleError: the reference is malformed, or the weights are not those the bundle was made with.
        InputError: the Hub did not give it, or a class that latentdc does not know.
    """
    try:
        wanted = checked(named if isinstance(named, Mapping) else {})
    except InputError as error:
        raise BundleError(f"the bundle's decoder cannot be found: {error}") from error
    where = Path(folder) if folder is not None else _fetched(wanted)
    if not (where / WEIGHTS).is_file():
        raise BundleError(f"{where}: {WEIGHTS} is missing; the bundle needs the decoder {_name(wanted)}.")
    if (found := sha256_of(where / WEIGHTS)) != wanted["sha256"]:
        raise BundleError(
            f"{where}: these are not the decoder's weights that the bundle was made with ({_name(wanted)}): their "
            f"sha256 is {found[:12]}…, not {wanted['sha256'][:12]}…. Its images would be others."
        )
    kind = known.get(str(read_json(where / "config.json").get("_class_name")))
    decoder = load_decoder(where, spec) if kind is None else load_component(kind, where, own=tuple(known.values()))
    try:
        return cast(ModelMixin, configured(decoder, wanted.get(SETTINGS, {})))
    except InputError as error:
        raise BundleError(f"the bundle's decoder cannot be read as it was: {error}") from error


def _fetched(wanted: Mapping[str, str]) -> Path:
    """The decoder's folder at its commit; of a whole pipeline only the subfolder is downloaded."""
    inside = f"{wanted['subfolder']}/" if wanted["subfolder"] else ""
    patterns = [inside + pattern for pattern in WANTED]
    root = fetch(wanted["repo_id"], "decoder", revision=wanted["revision"], patterns=patterns)
    return root / wanted["subfolder"]


def _name(wanted: Mapping[str, str]) -> str:
    return "/".join(part for part in (f"{wanted['repo_id']}@{wanted['revision'][:12]}", wanted["subfolder"]) if part)
