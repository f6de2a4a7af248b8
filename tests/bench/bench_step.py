"""What a condensation step costs: against the bare work it cannot avoid, and from a sketch against mini-batches."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
import torch
from bench.workloads import FULL, NUM_PAIRS, STAGES, Setting

from latentdc.discrepancies import DISCREPANCIES

MOST = 1.3
"""A step from a sketch may cost this many times the bare forward and backward of the same images."""
MOST_OF_LOOP = 1.1
"""And this many times the same tensor work without the loop around it."""
STEPS = 15


@pytest.mark.parametrize("by", [name for name, part in DISCREPANCIES.items() if part.sketchable])
def test_a_step_from_a_sketch_is_little_more_than_its_forward_and_backward(by: str, benchmark: Any) -> None:
    """Steps of the real loop and bare passes take turns, so that both see the same machine."""
    torch.set_num_threads(1)
    setting = Setting(FULL)
    source = setting.sketch(by)
    bare = setting.bare(source.network(0))
    skip, plain = NUM_PAIRS + 1, []

    def between(step: int) -> None:
        seconds = bare()
        if step > skip:
            plain.append(seconds)

    steps = benchmark.pedantic(
        setting.step_seconds,
        (source, by),
        {"steps": STEPS, "skip": skip, "between": between},
        rounds=1,
        iterations=1,
    )
    ratio = median(steps) / median(plain)
    benchmark.extra_info.update(
        step_seconds=median(steps), bare_seconds=median(plain), ratio=ratio, rows=setting.step_rows, num_steps=STEPS
    )
    assert len(steps) == len(plain) == STEPS
    assert ratio <= MOST


def test_the_loop_adds_little_to_the_tensor_work_of_a_step(benchmark: Any) -> None:
    """Steps of the real loop and the same work written out by hand take turns; by stages, the profile of a step."""
    torch.set_num_threads(1)
    setting = Setting(FULL)
    source = setting.sketch("mean")
    by_hand = setting.by_hand(source, "mean")
    skip, laps = NUM_PAIRS + 1, []

    def between(step: int) -> None:
        stages = by_hand(step)
        if step > skip:
            laps.append(stages)

    steps = benchmark.pedantic(
        setting.step_seconds,
        (source, "mean"),
        {"steps": STEPS, "skip": skip, "between": between},
        rounds=1,
        iterations=1,
    )
    plain = [sum(stages.values()) for stages in laps]
    ratio = median(steps) / median(plain)
    benchmark.extra_info.update(
        step_seconds=median(steps),
        by_hand_seconds=median(plain),
        ratio=ratio,
        **{f"{name}_seconds": median(stages[name] for stages in laps) for name in STAGES},
    )
    assert len(plain) == STEPS
    assert ratio <= MOST_OF_LOOP


def test_a_step_from_a_sketch_against_one_from_mini_batches(benchmark: Any) -> None:
    """At the same synthetic size; 64 real images a class where the literature takes 256."""
    torch.set_num_threads(1)
    setting = Setting(FULL)
    sources = {"sketch": (setting.sketch("mean"), NUM_PAIRS + 1), "minibatches": (setting.minibatches(), 1)}

    def both() -> dict[str, float]:
        return {
            name: median(setting.step_seconds(source, "mean", steps=5, skip=skip))
            for name, (source, skip) in sources.items()
        }

    seconds = benchmark.pedantic(both, rounds=1, iterations=1)
    benchmark.extra_info.update(
        sketch_seconds=seconds["sketch"],
        minibatches_seconds=seconds["minibatches"],
        ratio=seconds["minibatches"] / seconds["sketch"],
        rows=setting.step_rows,
        real_per_class=FULL.real_per_class,
    )
    assert seconds["sketch"] < seconds["minibatches"]
