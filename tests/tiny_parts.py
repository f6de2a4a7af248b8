"""The smallest instance of every decoder and formation, for tests that run over the tables."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from tiny_models import VARIANTS, tiny_autoencoder, tiny_diffusion
from torch import nn

from latentdc.bundle import save_bundle
from latentdc.decoders import DECODERS, FORMATIONS
from latentdc.decoders.module import adapt
from latentdc.portable.bank import LatentBank
from latentdc.seeding import global_seed, stream
from latentdc.types import DataSpec

SPEC = DataSpec((1, 8, 8), ("boot", "coat", "bag"), (0.4,), (0.3,), name="tiny", fingerprint="f" * 64)


def _frequency() -> nn.Module:
    """Masks that differ from class to class; all frequencies are kept, so that encoding loses nothing."""
    decoder = DECODERS["frequency"]([1, 8, 8], [0.4], [0.3], num_classes=3, num_coefficients=64)
    x = torch.rand(12, 1, 8, 8, generator=stream(0, "tiny-frequency"))
    decoder.adapt(x, torch.arange(3).repeat_interleave(4))
    return decoder


def _in_space(name: str, space: str) -> nn.Module:
    decoder: Any = _DECODERS[name]()
    return decoder.in_space(space)


def _mapped(space: str) -> nn.Module:
    sizes = {"num_classes": 3, "z_dim": 4, "channels": [8, 4], "embed_dim": 3}
    return DECODERS["gan"]([1, 8, 8], **sizes, mapping=2, truncation=0.9, space=space)


def _deep(space: str) -> nn.Module:
    sizes = {"z_dim": 4, "channels": [8, 8, 6], "embed_dim": 3, "truncation": 0.8}
    return DECODERS["biggan"]([1, 8, 8], 3, **sizes, deep=True, hierarchical=False, space=space)


_DECODERS: dict[str, Callable[[], nn.Module]] = {
    "pixels": lambda: DECODERS["pixels"]([1, 8, 8], [0.4], [0.3]),
    "memory": lambda: DECODERS["memory"]([1, 8, 8], [0.4], [0.3], num_bases=64),
    "frequency": lambda: _frequency(),
    "gan": lambda: DECODERS["gan"]([1, 8, 8], num_classes=3, z_dim=4, channels=[8, 4], embed_dim=3),
    "stylegan2": lambda: DECODERS["stylegan2"]([1, 8, 8], 3, z_dim=4, w_dim=5, channels=[6, 4], mapping=[5], rate=0.5),
    "biggan": lambda: DECODERS["biggan"]([1, 8, 8], 3, z_dim=4, channels=[8, 8], embed_dim=3, attention=[0]),
    "autoencoder": lambda: tiny_autoencoder("AutoencoderKL"),
    "diffusion": tiny_diffusion,
    "module": lambda: adapt("own_generator:Generator", [4], labels="one-hot", num_classes=3, arguments={"classes": 3}),
}
SPACES: dict[str, Callable[[], nn.Module]] = {
    "gan:f0": partial(_in_space, "gan", "f0"),
    **{f"gan:mapped-{s}": partial(_mapped, s) for s in ("z", "w", "w+", "f1")},
    **{f"stylegan2:{s}": partial(_in_space, "stylegan2", s) for s in ("w", "w+", "f0", "f1", "f2", "f3")},
    "stylegan2:plain": lambda: DECODERS["stylegan2"](
        [1, 8, 8], z_dim=4, w_dim=5, channels=[6, 4], mapping=[5], rate=0.5, truncation=0.7, clamp=2.5
    ),
    "biggan:f0": partial(_in_space, "biggan", "f0"),
    "biggan:flat": lambda: DECODERS["biggan"]([1, 8, 8], 3, z_dim=4, channels=[8, 8], embed_dim=3, hierarchical=False),
    "biggan:deep": partial(_deep, "z"),
    "biggan:deep-f1": partial(_deep, "f1"),
}
"""Other spaces and shapes of the same classes: no names of the table, but under the same laws."""
_FORMATIONS: dict[str, Callable[[], nn.Module]] = {
    "tiles": lambda: FORMATIONS["tiles"](2),
    "channels": lambda: FORMATIONS["channels"]([1, 8, 8]),
    "hallucinators": lambda: FORMATIONS["hallucinators"]([1, 8, 8], num=2),
}

if _DECODERS.keys() != DECODERS.keys() or _FORMATIONS.keys() != FORMATIONS.keys():
    raise AssertionError("give every decoder and formation of the tables a tiny instance here")


EVERY = (*_DECODERS, *SPACES, *VARIANTS)
"""Names of all tiny decoders: one for each of the table, more spaces of the GANs, and more models others may hold."""


def tiny_decoder(name: str, *, seed: int = 0) -> Any:
    """A decoder for ``SPEC``, frozen, with statistics and weights that are not the initial ones."""
    return copy.deepcopy(_made(name, seed))


@cache
def _made(name: str, seed: int) -> Any:
    with global_seed(seed, "tiny-decoder"):
        decoder = {**_DECODERS, **SPACES, **VARIANTS}[name]()
        for module in decoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for weight in decoder.parameters():
            if weight.numel() == 1 and weight.ndim == 0:  # gains that start at zero
                nn.init.constant_(weight, 0.3)
    return decoder.eval().requires_grad_(False)


def tiny_formation(name: str | None) -> Any:
    """A formation for ``SPEC``, or None."""
    return None if name is None else _FORMATIONS[name]().eval()


def tiny_bank(decoder: Any, counts: Sequence[int] = (3, 1, 2), *, seed: int = 0, extras: bool = False) -> LatentBank:
    """Prior draws of ``decoder``; ``extras`` adds soft labels and weights."""
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(list(counts)))
    rng = stream(seed, "tiny-bank")
    latents = decoder.prior(owner, rng)
    if not extras:
        return LatentBank.of(latents, counts)
    soft = torch.rand(len(owner), len(counts), generator=rng)
    return LatentBank.of(latents, counts, y=soft / soft.sum(1, keepdim=True), w=torch.rand(len(owner), generator=rng))


def write_bundle(folder: Path, *, storage: str = "fp32", formation: str | None = "tiles", **extra: Any) -> Path:
    """Save the smallest bundle: the gan decoder, perhaps tiles, in any storage."""
    decoder = tiny_decoder("gan")
    return save_bundle(
        folder,
        bank=tiny_bank(decoder).quantise(storage),
        decoder=decoder,
        formation=tiny_formation(formation),
        spec=SPEC,
        **{"provenance": {"recipe": "steps = 3\n", "seed": 7}, **extra},
    )
