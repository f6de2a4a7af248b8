"""Writes a decoder's folder: whole or not at all, its own files replaced, what else lies beside them kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusers.models.modeling_utils import ModelMixin

from latentdc.atomic import keep_others
from latentdc.decoders.reference import CARD, read_card, seal
from latentdc.errors import BundleError, InputError


def check_place(out: Path, ours: Callable[[Mapping[str, Any]], bool], what: str) -> None:
    """Check that a decoder may be written there: before the work, not after.

    Args:
        out: the place.
        ours: of the card of a decoder that is there, whether it may be replaced.
        what: such a decoder in words, for the message.

    Raises:
        InputError: the place is a file, or a folder that holds anything but such a decoder.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder for the decoder (--out).")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        card = read_card(out)
    except BundleError:  # a card that is none
        card = {}
    if not ours(card):
        raise InputError(
            f"{out}: exists and holds no {what}; give an empty or new folder (--out), it is left as it is."
        )


def write_decoder(
    out: Path,
    decoder: ModelMixin,
    card: Mapping[str, Any],
    readme: str,
    *,
    draw: Callable[[Path], object] | None = None,
) -> None:
    """Build the folder beside ``out`` and move it into place: weights and configuration, README, sealed card.

    Args:
        out: where; ``check_place`` was asked before.
        decoder: on the CPU.
        card: what ``card.json`` says beside the sha256 of every file.
        readme: text of ``README.md``.
        draw: called with the unfinished folder, for pictures.
    """
    fresh, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
    for path in (fresh, old):
        shutil.rmtree(path, ignore_errors=True)
    decoder.save_pretrained(fresh)
    config = json.loads((fresh / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # diffusers notes the folder a module came from
    (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in fresh.iterdir():
        path.chmod(0o644)  # safetensors writes files only their owner can read
    if draw is not None:
        draw(fresh)
    (fresh / "README.md").write_text(readme, encoding="utf-8")
    seal(fresh, dict(card))
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        keep_others(out, fresh, {CARD, *read_card(out).get("sha256", {})})
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
