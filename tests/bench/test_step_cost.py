"""What a condensation step from a sketch costs beside the bare forward and backward of the same images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from latentdc.condense import Step, condense
from latentdc.portable.gan import GanDecoder
from latentdc.recipe import build, make_bank, make_source, parse_recipe

STEPS = 15
BOUND = 1.3


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 5])
def test_step_costs_at_most_the_bare_passes_and_a_third(rows: int, make_store: Callable[..., object]) -> None:
    store = make_store(8, num_classes=10, size=28)
    recipe = parse_recipe({"images_per_class": rows, "source": {"kind": "sketch", "num_pairs": 2}})
    decoder = GanDecoder((1, 28, 28), 10).eval()
    built = build(recipe, store.spec, decoder=decoder)
    source = make_source(built, store, progress=False)
    bank = make_bank(built)
    ends: list[float] = []

    def stamp(now: Step) -> None:
        ends.append(time.perf_counter())

    condense(
        decoder,
        bank,
        built.objective,
        source,
        steps=STEPS,
        optim=recipe.optim,
        seed=0,
        on_step=(stamp,),
        progress=False,
    )
    step_seconds = statistics.median(b - a for a, b in pairwise(ends))
    bare: list[float] = []
    for step in range(STEPS):
        net = source.view(step).net
        start = time.perf_counter()
        z = bank.latents()
        features = net.observe(decoder(z, bank.owner)).last
        torch.autograd.grad(features.square().sum(), list(z.values()))
        bare.append(time.perf_counter() - start)
    ratio = step_seconds / statistics.median(bare[1:])
    assert ratio <= BOUND, f"{ratio:.2f} times the bare passes"
