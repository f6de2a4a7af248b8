"""Keyed randomness: every draw is a pure function of (seed, purpose, step, class), never of what was drawn before.

So resuming needs no saved generator state, and a draw does not depend on how many processes share the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def key(seed: int, purpose: str, step: int = 0, index: int = 0) -> int:
    """A 63-bit integer that depends on all four arguments and on nothing else.

    Args:
        seed: the run's seed.
        purpose: what the draw is for, for instance ``"augment"``; different purposes never share a stream.
        step: optimisation step, or 0.
        index: class, network or row the draw belongs to, or 0.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, purpose: str, step: int = 0, index: int = 0) -> torch.Generator:
    """A fresh CPU generator for one draw; same arguments, same numbers, on any rank and after any resume."""
    return torch.Generator().manual_seed(key(seed, purpose, step, index))


@contextmanager
def global_seed(seed: int, purpose: str, step: int = 0, index: int = 0) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block (module constructors draw from it) and restore it after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, purpose, step, index))
        yield
