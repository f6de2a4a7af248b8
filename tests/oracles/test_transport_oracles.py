"""Our optimal transport against POT and geomloss."""

from __future__ import annotations

from typing import Any

import geomloss
import ot
import pytest
import torch
from torch import Tensor

from latentdc.discrepancies import Sinkhorn
from latentdc.discrepancies.kernels import mean_square_distance
from latentdc.discrepancies.transport import exact_plan

OWNER_REAL, OWNER_SYN = torch.zeros(9, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
REAL = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SYN = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
B = torch.tensor([0.3, 1.0, 2.0, 0.0, 0.5, 0.7, 1.5, 1.0, 0.1], dtype=torch.float64)
A = torch.tensor([1.0, 0.2, 3.0, 0.8], dtype=torch.float64)


def _costs(x: Tensor, y: Tensor, p: int) -> Tensor:
    return torch.cdist(x, y) ** p / p


def _blurred(x: Tensor, a: Tensor, y: Tensor, b: Tensor, epsilon: float, p: int) -> float:
    """The primal value at POT's plan."""
    cost, keep = _costs(x, y, p), b > 0
    cost, b = cost[:, keep], b[keep]
    plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", numItermax=5000, stopThr=1e-12)
    return float((plan * cost).sum() + epsilon * torch.special.xlogy(plan, plan / (a[:, None] * b)).sum())


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blur", [0.0, 0.5, 1.0])
def test_sinkhorn_against_pot(p: Any, weighted: bool, blur: float) -> None:
    by = Sinkhorn(blur, p)
    a, b = (A, B) if weighted else (torch.ones_like(A), torch.ones_like(B))
    value = float(by(by.summarise(REAL, OWNER_REAL, 1, b), SYN, OWNER_SYN, a))
    epsilon = (blur * float(mean_square_distance(REAL, OWNER_REAL, 1, b)) ** 0.5) ** p
    a, b = a / a.sum(), b / b.sum()
    if blur == 0:
        assert value == pytest.approx(float(ot.emd2(a, b, _costs(SYN, REAL, p))))
        return
    across, syn = _blurred(SYN, a, REAL, b, epsilon, p), _blurred(SYN, a, SYN, a, epsilon, p)
    some = b > 0
    real = _blurred(REAL[some], b[some], REAL[some], b[some], epsilon, p)
    assert value == pytest.approx(across - syn / 2 - real / 2, rel=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_sinkhorn_against_geomloss(p: Any) -> None:
    """geomloss does a fixed number of rounds; gradients agree too."""
    by, ours, theirs = Sinkhorn(0.5, p), SYN.clone().requires_grad_(), SYN.clone().requires_grad_()
    value = by(by.summarise(REAL, OWNER_REAL, 1), ours, OWNER_SYN)
    length = 0.5 * float(mean_square_distance(REAL, OWNER_REAL, 1)) ** 0.5
    loss = geomloss.SamplesLoss("sinkhorn", p=p, blur=length, scaling=0.98, backend="tensorized")(theirs, REAL)
    torch.testing.assert_close(value, loss, rtol=1e-3, atol=0)
    value.backward()
    loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-3)


def test_exact_plan_against_pot() -> None:
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        n, m = (int(torch.randint(1, 25, (1,), generator=rng)) for _ in range(2))
        a, b = (torch.rand(num, generator=rng, dtype=torch.float64) for num in (n, m))
        a, b = a / a.sum(), b / b.sum()
        cost = torch.rand(n, m, generator=rng, dtype=torch.float64)
        cost = (8 * cost).round() if seed % 2 else cost  # with ties and without
        plan = exact_plan(cost, a, b)
        torch.testing.assert_close(plan.sum(1), a)
        torch.testing.assert_close(plan.sum(0), b)
        assert float((plan * cost).sum()) == pytest.approx(float(ot.emd2(a, b, cost)))
