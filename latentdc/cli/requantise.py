"""``latentdc requantise``: the same set in fewer bytes a number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, say


def requantise(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.")],
    *,
    storage: Annotated[options.Storage, typer.Option("--storage", help="How the new bundle keeps its latents.")],
    out: options.Out,
    own: options.Own = None,
    json: options.Json = False,
) -> None:
    """Write a bundle's latents in another storage to a new bundle; nothing is condensed again.

    What the coarser numbers decode to is a little different, so reports and pictures stay with the old bundle. A wider
    storage brings nothing back that a narrower one has lost.

    \b
    Examples:
      latentdc requantise runs/first --storage int8 --out runs/first-int8
      latentdc evaluate runs/first-int8 --data fashion-mnist-mini --protocol quick
    """
    from latentdc.bundle import load_bundle
    from latentdc.bundle import requantise as run

    out, classes = options.vacant(out), options.own_classes(own)
    run(bundle, out, storage.value, classes=classes)
    before, after = (load_bundle(each, classes=classes) for each in (bundle, out))
    if json:
        facts = {"path": str(out), "stored_as": after.bank.storage, "storage": after.storage.to_dict()}
        emit({**facts, "before": {"stored_as": before.bank.storage, "storage": before.storage.to_dict()}})
        return
    say(
        f"bundle written to {out}: {after.bank.storage} in place of {before.bank.storage}, "
        f"{after.storage.payload:,} bytes in place of {before.storage.payload:,}",
        *after.storage.lines(),
        f"note: judge it anew with latentdc evaluate; its images are drawn by latentdc inspect {out} --grid FILE",
    )
