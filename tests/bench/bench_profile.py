"""Where a step of a recipe goes, by kind of operation: mini-batches by means, maps and attention, and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench.workloads import FULL, Setting
from torch.profiler import ProfilerActivity, profile

from latentdc.recipe import build, load_recipe
from latentdc.recipe.estimate import trial
from latentdc.recipe.real import make_source

RECIPES = ("dm", "dm-gan", "datadam", "cafe", "dc")
KINDS = {
    "convolution": ("conv",),
    "matrix_product": ("mm", "matmul", "linear"),
    "normalisation": ("group_norm", "batch_norm"),
    "pooling": ("pool",),
    "augmentation": ("grid_sampler",),
    "power": ("pow", "square"),
    "copy": ("copy_", "cat", "index", "clone"),
}
"""Names of torch's operations hold one of these; whatever does not is elementwise work, sums and the like: ``rest``."""
STEPS = 2
LEAST = 1 / 3
"""Of a step, convolutions take at least this share."""


def shares(setting: Setting, recipe: str, steps: int = STEPS) -> dict[str, float]:
    """Share of the CPU time of a few steps that each kind of operation takes, uncompiled; they add up to 1."""
    store, size = setting.store, setting.size
    settings = ["source.kind=minibatches", f"source.num_per_class={size.real_per_class}", f"source.width={size.width}"]
    budget = {"images_per_class": size.rows_per_class, "bytes_per_class": None}
    decoder = setting.decoder if recipe == "dm-gan" else None
    built = build(load_recipe(recipe, settings=settings, overrides=budget), store.spec, decoder=decoder)
    source, device = make_source(built, store), torch.device("cpu")
    trial(built, source, device, 1)  # networks that are trained once, and first calls
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        trial(built, source, device, steps)
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    found = dict.fromkeys((*KINDS, "rest"), 0.0)
    for name, microseconds in times.items():
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "rest")
        found[kind] += microseconds / sum(times.values())
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_where_a_step_goes(recipe: str, benchmark: Any) -> None:
    """Convolutions are the work that a step cannot avoid; what looks at their maps must not take most of it."""
    torch.set_num_threads(1)
    found = benchmark.pedantic(shares, (Setting(FULL), recipe), rounds=1, iterations=1)
    benchmark.extra_info.update({f"{kind}_share": share for kind, share in found.items()}, precision="fp32")
    assert found["convolution"] >= LEAST
