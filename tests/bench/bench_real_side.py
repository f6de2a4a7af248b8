"""What the real side costs: sums against a float64 copy, a fourth power against a general one, landmarks kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import process_time
from typing import Any

import torch
from bench.workloads import FULL, Setting, Size
from torch import Tensor

from latentdc.data.augment import DSA
from latentdc.discrepancies import Sliced
from latentdc.discrepancies.base import class_sums, exact_sums
from latentdc.networks import FixedPool
from latentdc.objectives import Match
from latentdc.representations import Features, attention
from latentdc.sketch import sketch
from latentdc.sketch.kept import Kept

IMAGES = 256
ROUNDS = 7
LANDMARKS = 100
MOST = {"sums": 0.5, "fourth_power": 0.8, "landmarks": 0.9}
"""Either takes at most this share of the plain way."""


def ways(size: Size, images: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """How it is done and the plain way, of the first maps of one class's images under the ConvNet."""
    maps = torch.rand((images, size.width, size.side, size.side), generator=torch.Generator().manual_seed(0))
    flat, owner, k = maps.flatten(1), torch.zeros(images, dtype=torch.int64), size.num_classes
    return {
        "sums": (lambda: exact_sums(flat, owner, k), lambda: class_sums(flat.double(), owner, k)),
        "fourth_power": (lambda: attention.to_the(maps, 4.0).sum(1), lambda: maps.abs().pow(4.0).sum(1)),
    }


def steps_from_landmarks(size: Size, num: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The objective of a step at an image a class, sliced Wasserstein to landmarks: summarised once, and every time."""
    setting = Setting(replace(size, real_per_class=num))
    store, see, by = setting.store, Features(), Sliced()
    pool = FixedPool("convnet", store.spec, 0, 1, width=size.width)
    source = sketch(store, pool, DSA(), see, by, num_pairs=1, landmarks=num, progress=False)
    syn, match = store.batch(torch.arange(size.num_classes) * num), Match(see, by)
    syn = syn._replace(x=syn.x.clone().requires_grad_())

    def step() -> Tensor:
        (gradient,) = torch.autograd.grad(match(source.view(0), syn), syn.x)
        return gradient

    def anew() -> Tensor:
        source._kept = Kept(source.held)
        return step()

    return step, anew


def test_the_real_side(benchmark: Any) -> None:
    """The two ways take turns, so that both see the same machine."""
    torch.set_num_threads(1)
    pairs = {**ways(FULL, IMAGES), "landmarks": steps_from_landmarks(FULL, LANDMARKS)}

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
