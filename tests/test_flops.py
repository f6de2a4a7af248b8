"""Operations of a run, counted, against what its layers multiply."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch

from latentdc.data.sampling import KMeansSampler, UniformSampler
from latentdc.data.store import ClassStore
from latentdc.recipe import Flops, build, count_flops, parse_recipe
from latentdc.recipe.build import Built
from latentdc.recipe.estimate import missed_looks

HIDDEN = 2 * (64 * 8 + 8 * 8)
"""Of the two hidden layers of an MLP of width 8, for one image of 64 numbers; 3 classes."""
OUT = 2 * 8 * 3
REAL, SYNTHETIC = 3 * 6, 3 * 2
MEANS = 2 * 3 * 8
"""Of the means of three classes, for one image: a product with its class."""


def built(store: ClassStore, **changes: Any) -> Built:
    small = {
        "images_per_class": 2,
        "steps": 3,
        "init": "real",
        "augment": {"kind": "dsa", "strategy": "flip"},  # nothing that multiplies
        "source": {"arch": "mlp", "width": 8, "num_per_class": 6, "num_pairs": 2},
    }
    overrides = {name.replace("__", "."): value for name, value in changes.items()}
    return build(parse_recipe(small, overrides=overrides), store.spec)


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")


def test_a_step_is_every_pass_and_the_gradient_to_the_images(tiny_store: ClassStore, cpu: torch.device) -> None:
    found = count_flops(built(tiny_store), tiny_store, device=cpu)
    forward = (REAL + SYNTHETIC) * (HIDDEN + OUT + MEANS)
    assert found == Flops(step=forward + SYNTHETIC * (HIDDEN + MEANS), networks=0.0)


def test_a_sketch_leaves_the_synthetic_images(tiny_store: ClassStore, cpu: torch.device) -> None:
    found = count_flops(built(tiny_store, source__kind="sketch"), tiny_store, device=cpu)
    assert found.step == SYNTHETIC * (2 * (HIDDEN + MEANS) + OUT)


def test_gradients_of_gradients_are_counted_as_they_run(tiny_store: ClassStore, cpu: torch.device) -> None:
    means = count_flops(built(tiny_store), tiny_store, device=cpu).step
    gradients = built(tiny_store, objective__see="gradients", objective__by="cosine")
    assert count_flops(gradients, tiny_store, device=cpu).step > 2 * means


def test_networks_that_a_pool_trains_are_counted_once_each(tiny_store: ClassStore, cpu: torch.device) -> None:
    pools = [{"kind": "blended", "num": num, "epochs": 1} for num in (1, 2)]
    one, two = (count_flops(built(tiny_store, source__pool=pool), tiny_store, device=cpu) for pool in pools)
    weights_and_inputs = 2 * (HIDDEN + OUT) - 2 * 64 * 8  # nobody asks for the gradient to the real images
    trained = len(tiny_store) * (HIDDEN + OUT + weights_and_inputs)
    assert one.networks == pytest.approx(trained, rel=0.1), "and the look that finds whether it diverged"
    assert two.networks == 2 * one.networks
    assert two.step == one.step


@pytest.mark.parametrize("every", [1, 2, 10, 1000])
def test_looks_of_a_sampler_are_spread_over_the_steps_between_them(
    tiny_store: ClassStore, cpu: torch.device, every: int
) -> None:
    plain = count_flops(built(tiny_store), tiny_store, device=cpu).step
    sampler = {"kind": "kmeans", "every": every}
    found = count_flops(built(tiny_store, source__sampler=sampler), tiny_store, device=cpu).step
    look = len(tiny_store) * (HIDDEN + OUT)
    assert found - plain == pytest.approx(look / every)


@pytest.mark.parametrize(("every", "expected"), [(1, 0), (2, 0), (3, Fraction(1, 3)), (10, Fraction(1, 10))])
def test_a_timed_trial_counts_no_look_twice(tiny_store: ClassStore, every: int, expected: Fraction) -> None:
    assert missed_looks(KMeansSampler(tiny_store, every=every), range(1, 3)) == expected
    assert missed_looks(UniformSampler(tiny_store), range(1, 3)) == 0
