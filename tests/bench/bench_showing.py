"""What a network's pass costs by what it shows: compiled, everything that it returns is written out and read back."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import torch
from bench.workloads import FULL, Setting

from latentdc.networks import build
from latentdc.networks.compiled import Observe, compiled, observer
from latentdc.types import EMBEDDING, FEATURES

IMAGES = 480
ROUNDS = 11
MOST = 0.9
"""A compiled pass that shows the embedding may take this share of one that shows every depth."""


def showing(setting: Setting, num: int) -> Callable[[Observe], float]:
    """A pass of a network and back to the images, for the mean embedding's length: seconds by how it is run."""
    spec = setting.store.spec
    net = build("convnet", spec, seed=0, width=setting.size.width).eval().requires_grad_(False)
    images = torch.rand((num, *spec.image_shape), generator=torch.Generator().manual_seed(0))

    def seconds(observe: Observe) -> float:
        x = images.clone().requires_grad_()
        start = process_time()
        with torch.autocast("cpu", torch.bfloat16):
            last = observe(net, x).last
        last.float().mean(0).square().sum().backward()
        return process_time() - start

    return seconds


def test_a_pass_by_what_it_shows(benchmark: Any) -> None:
    """Four ways to run it take turns, so that all see the same machine."""
    torch.set_num_threads(1)
    ways = {
        "embedding": observer(compile=True, parts=EMBEDDING),
        "every_depth": observer(compile=True, parts=FEATURES),
        "maps": compiled(lambda net, x: net.observe(x)),
        "uncompiled": observer(),
    }
    seconds = showing(Setting(FULL), IMAGES)

    def turns() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 2):
            for name, way in ways.items():
                took = seconds(way)
                if number >= 2:  # compiled and warm
                    found[name].append(took)
        return found

    found = {name: median(each) for name, each in benchmark.pedantic(turns, rounds=1, iterations=1).items()}
    ratio = found["embedding"] / found["every_depth"]
    benchmark.extra_info.update(
        {f"{name}_seconds": each for name, each in found.items()}, ratio=ratio, images=IMAGES, precision="bf16"
    )
    assert ratio <= MOST
    assert found["maps"] > found["uncompiled"]  # which is why a pass that is to show maps is not compiled
