"""The energy distance between samples: without bias, and without units."""

from __future__ import annotations

import pytest
import torch

from latentdc.discrepancies import Energy
from latentdc.seeding import stream


def test_energy_without_bias_is_zero_on_average_between_samples_of_one_distribution() -> None:
    def mean(by: Energy) -> float:
        found = []
        for seed in range(200):
            rng = stream(seed, "samples")
            real, ours = torch.randn(6, 3, generator=rng), torch.randn(6, 3, generator=rng)
            owner = torch.zeros(6, dtype=torch.int64)
            found.append(float(by(by.summarise(real, owner, 1), ours, owner)))
        return sum(found) / len(found)

    assert abs(mean(Energy(unbiased=True))) < 0.1, "about three standard errors of 200 draws"
    assert mean(Energy()) > 0.5, "a share of 1 / 6 of the distances on either side"


def test_relative_energy_knows_no_units() -> None:
    rng = stream(1, "samples")
    real, ours = torch.randn(7, 3, generator=rng), 1 + torch.randn(5, 3, generator=rng)
    theirs, mine = torch.zeros(7, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)
    by = Energy(relative=True)
    one, other = (float(by(by.summarise(k * real, theirs, 1), k * ours, mine)) for k in (1.0, 50.0))
    assert other == pytest.approx(one, rel=1e-4)
    spread = float(torch.pdist(real).square().mean().sqrt())
    plain = Energy()
    assert one * spread == pytest.approx(float(plain(plain.summarise(real, theirs, 1), ours, mine)), rel=1e-4)
