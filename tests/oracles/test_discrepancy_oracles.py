"""Our estimators against POT and geomloss, where they compute the same thing."""

from __future__ import annotations

import geomloss
import ot
import pytest
import torch
from scipy.stats import energy_distance

from latentdc.discrepancies import Energy, Mmd, Sliced
from latentdc.discrepancies.directions import unit_vectors
from latentdc.discrepancies.kernels import FACTORS

OWNER_REAL, OWNER_SYN = torch.zeros(9, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
REAL = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SYN = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5


def test_energy_against_pot() -> None:
    by = Energy()
    across, syn, real = (
        float(ot.dist(a, b, metric="euclidean").mean()) for a, b in ((SYN, REAL), (SYN, SYN), (REAL, REAL))
    )
    assert float(by(by.summarise(REAL, OWNER_REAL, 1), SYN, OWNER_SYN)) == pytest.approx(2 * across - syn - real)


def test_energy_against_geomloss() -> None:
    """geomloss halves the energy distance and takes no distance below 1e-4; gradients agree too."""
    by, ours, theirs = Energy(), SYN.clone().requires_grad_(), SYN.clone().requires_grad_()
    value = by(by.summarise(REAL, OWNER_REAL, 1), ours, OWNER_SYN)
    half = geomloss.SamplesLoss("energy", backend="tensorized")(theirs, REAL)
    torch.testing.assert_close(value, 2 * half, rtol=1e-4, atol=0)
    value.backward()
    half.backward()
    torch.testing.assert_close(ours.grad, 2 * theirs.grad, rtol=1e-4, atol=1e-6)


def test_mmd_against_geomloss() -> None:
    by = Mmd(bandwidth=3.0)
    halves = [
        geomloss.SamplesLoss("gaussian", blur=(3.0 * f / 2) ** 0.5, backend="tensorized")(SYN, REAL) for f in FACTORS
    ]
    torch.testing.assert_close(by(by.summarise(REAL, OWNER_REAL, 1), SYN, OWNER_SYN), 2 * sum(halves))


def test_mmd_bandwidth_against_pot() -> None:
    lengths = Mmd().lengths(REAL, OWNER_REAL, 1)
    assert lengths is not None
    squares = ot.dist(REAL, REAL)  # squared Euclidean
    assert float(lengths[0]) == pytest.approx(float(squares.sum()) / (9 * 8))


WEIGHTS_REAL = torch.tensor([0.3, 1.0, 2.0, 0.0, 0.5, 0.7, 1.5, 1.0, 0.1], dtype=torch.float64)
WEIGHTS_SYN = torch.tensor([1.0, 0.2, 3.0, 0.8], dtype=torch.float64)
DIRECTIONS = unit_vectors(0, 5, 256, torch.float64, torch.device("cpu"))


@pytest.mark.parametrize("weighted", [False, True])
def test_sliced_wasserstein_against_pot(weighted: bool) -> None:
    by, b, a = Sliced(), WEIGHTS_REAL, WEIGHTS_SYN
    b, a = (b, a) if weighted else (torch.ones_like(b), torch.ones_like(a))
    root = ot.sliced_wasserstein_distance(SYN, REAL, a / a.sum(), b / b.sum(), projections=DIRECTIONS)
    assert float(by(by.summarise(REAL, OWNER_REAL, 1, b), SYN, OWNER_SYN, a)) == pytest.approx(float(root) ** 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_sliced_energy_against_scipy(weighted: bool) -> None:
    """scipy takes the root; ``E_θ|⟨θ, x⟩| = 3/8 ‖x‖`` in five dimensions."""
    by, b, a = Sliced("energy"), WEIGHTS_REAL, WEIGHTS_SYN
    b, a = (b, a) if weighted else (torch.ones_like(b), torch.ones_like(a))
    lines = [(SYN @ theta, REAL @ theta) for theta in DIRECTIONS.T]
    mean = sum(energy_distance(x, t, a, b) ** 2 for x, t in lines) / len(lines)
    assert float(by(by.summarise(REAL, OWNER_REAL, 1, b), SYN, OWNER_SYN, a)) == pytest.approx(mean * 8 / 3)
