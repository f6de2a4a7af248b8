"""How good a start was, and what condensation made of it: reconstruction errors and one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentdc.errors import InputError
from latentdc.grid import save_columns
from latentdc.latents import decode
from latentdc.portable.bank import LatentBank
from latentdc.types import Batch, Decoder


def reconstruction(decoder: Decoder, bank: LatentBank, real: Batch) -> Tensor:
    """Mean squared pixel error of each row against the real image it stands for ``(s,)``, on the CPU.

    Args:
        decoder: latents → images.
        bank: one row per real image.
        real: what ``start_images`` gave, in the rows' order.

    Raises:
        InputError: not one real image per row.
    """
    if len(real.x) != bank.num_rows:
        raise InputError(f"{bank.num_rows} rows and {len(real.x)} real images: give one real image per row.")
    x = decode(decoder, bank).x
    return (x - real.x.to(x.device)).square().flatten(1).mean(1).cpu()


def start_report(
    path: str | Path, real: Batch, started: Tensor, ended: Tensor, class_names: Sequence[str]
) -> dict[str, Any]:
    """Write one picture, real | start | condensed, and return the reconstruction errors of the start.

    Args:
        path: of the PNG.
        real: the real images the rows started from.
        started: what the rows decoded to before the first step ``(s, c, h, w)``, before any formation.
        ended: what the same rows, in the same order, decode to after the last step.
        class_names: k names.

    Returns:
        ``reconstruction_mse`` (mean over rows of the squared pixel error, images in [0, 1]), ``worst_mse``,
        ``psnr_db`` of the mean, ``mse_after`` (against the same images, after condensation), ``num_rows``, ``picture``.

    Raises:
        InputError: not one image of each kind per row.
    """
    groups = {"real": real.x.cpu(), "start": started.cpu(), "condensed": ended.cpu()}
    shown = {name: x.detach().clamp(0, 1).mul(255).round().to(torch.uint8) for name, x in groups.items()}
    picture = save_columns(path, shown, real.owner.cpu(), class_names)
    errors, after = ((groups[name] - groups["real"]).square().flatten(1).mean(1) for name in ("start", "condensed"))
    mean = float(errors.mean())
    return {
        "reconstruction_mse": mean,
        "worst_mse": float(errors.max()),
        "psnr_db": -10 * math.log10(mean) if mean > 0 else None,
        "mse_after": float(after.mean()),
        "num_rows": len(errors),
        "picture": picture.name,
    }
