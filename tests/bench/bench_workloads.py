"""Time and peak memory of every workload."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench.peak import peak
from bench.workloads import FULL, WORKLOADS, prepared

ROUNDS = {"sketching": 3, "student": 3, "steps": 2}
"""Rounds of slow workloads, by the first word of their names; 7 of the others. One more warms up."""


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(name: str, benchmark: Any) -> None:
    torch.set_num_threads(1)
    rounds = ROUNDS.get(name.split("-")[0], 7)
    benchmark.pedantic(prepared(name), rounds=rounds, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(peak(name))
    if name.startswith("steps"):
        benchmark.extra_info["steps"] = FULL.steps
    if name == "student":
        benchmark.extra_info["passes"] = FULL.passes
