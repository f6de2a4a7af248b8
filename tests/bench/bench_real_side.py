"""What the sums of real features cost: against a float64 copy of them all, and a fourth power against a general one."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import torch
from bench.workloads import FULL, Size

from latentdc.discrepancies.base import class_sums, exact_sums
from latentdc.representations import attention

IMAGES = 256
ROUNDS = 7
MOST = {"sums": 0.5, "fourth_power": 0.8}
"""Either takes at most this share of the plain way."""


def ways(size: Size, images: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """How it is done and the plain way, of the first maps of one class's images under the ConvNet."""
    maps = torch.rand((images, size.width, size.side, size.side), generator=torch.Generator().manual_seed(0))
    flat, owner, k = maps.flatten(1), torch.zeros(images, dtype=torch.int64), size.num_classes
    return {
        "sums": (lambda: exact_sums(flat, owner, k), lambda: class_sums(flat.double(), owner, k)),
        "fourth_power": (lambda: attention.to_the(maps, 4.0).sum(1), lambda: maps.abs().pow(4.0).sum(1)),
    }


def test_the_real_side_of_maps(benchmark: Any) -> None:
    """The two ways take turns, so that both see the same machine."""
    torch.set_num_threads(1)
    pairs = ways(FULL, IMAGES)

    def turns() -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pairs}
        for number in range(ROUNDS + 1):
            for name, pair in pairs.items():
                for way, seconds in zip(pair, found[name], strict=True):
                    began = process_time()
                    way()
                    if number:  # warm
                        seconds.append(process_time() - began)
        return {name: (median(own), median(plain)) for name, (own, plain) in found.items()}

    for name, (own, plain) in benchmark.pedantic(turns, rounds=1, iterations=1).items():
        benchmark.extra_info.update(
            {f"{name}_seconds": own, f"{name}_plain_seconds": plain, f"{name}_ratio": own / plain}
        )
        assert own <= MOST[name] * plain
