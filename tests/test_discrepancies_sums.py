"""The sums of real points are those of float64 copies, without the copies."""

from __future__ import annotations

import pytest
import torch

from latentdc.discrepancies.base import exact_sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(5000,), (3, 1500), (4,)])
def test_exact_sums_are_those_of_float64_copies(dtype: torch.dtype, weighted: bool, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn((9, *shape), generator=generator).to(dtype).requires_grad_()
    owner = torch.tensor([4, 1, 1, 4, 4, 1, 4, 1, 1])  # of six classes four have no point
    w = torch.rand(9, generator=generator) if weighted else None
    sums, counts = exact_sums(points, owner, 6, w)
    mass = torch.ones(9, dtype=torch.float64) if w is None else w.double()
    for cls in range(6):
        mine = owner == cls
        expected = sum(
            (m * x for m, x in zip(mass[mine], points.detach().double()[mine], strict=True)), torch.zeros(())
        )
        torch.testing.assert_close(sums[cls], expected.double().expand(shape), rtol=1e-12, atol=1e-12)
        assert counts[cls] == pytest.approx(float(mass[mine].sum()), abs=1e-12)
    assert sums.dtype == counts.dtype == torch.float64
    assert not sums.requires_grad
