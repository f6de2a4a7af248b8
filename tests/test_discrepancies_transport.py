"""Known values of the discrepancies that move mass: on lines, at a blur, to atoms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference.sliced_loop import sliced_loop
from torch import Tensor

from latentdc.discrepancies import Discrepancy, Energy, Mean, Mmd, Sliced
from latentdc.discrepancies.directions import unit_vectors
from latentdc.errors import InputError


def _points(num: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=rng, dtype=torch.float64) + shift


def _value(by: Discrepancy, real: Tensor, syn: Tensor, b: Tensor | None = None, a: Tensor | None = None) -> float:
    one, other = (torch.zeros(len(side), dtype=torch.int64) for side in (real, syn))
    return float(by(by.summarise(real, one, 1, b), syn, other, a))


REAL, SYN = _points(7, 4, 0), _points(4, 4, 1, 0.5)
B, A = torch.tensor([0.3, 1.0, 2.0, 0.0, 0.5, 0.7, 1.5]), torch.tensor([1.0, 0.2, 3.0, 0.8])


@pytest.mark.parametrize("metric", ["wasserstein", "energy"])
def test_sliced_on_a_line_is_exact(metric: Any) -> None:
    """One coordinate has one direction: equal to the loop there, and to closed forms of Diracs and Gaussians."""
    by, real, syn = Sliced(metric=metric, num=3), REAL[:, :1], SYN[:, :1]
    zeros = [torch.zeros(len(side), dtype=torch.int64) for side in (real, syn)]
    whole = sliced_loop(real, zeros[0], syn, zeros[1], torch.ones(1, 1, dtype=torch.float64), metric)
    assert _value(by, real, syn) == pytest.approx(whole)
    at = torch.zeros(1, 1, dtype=torch.float64)
    assert _value(by, at, at + 3) == pytest.approx({"wasserstein": 9, "energy": 6}[metric])
    even = (torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000
    normal = torch.special.ndtri(even)
    far = {"wasserstein": 0.7**2 + (1.5 - 1) ** 2, "energy": _energy_of_gaussians(0.7, 1.0, 1.5)}[metric]
    assert _value(by, normal, 1.5 * normal[::4] + 0.7) == pytest.approx(far, rel=1e-2)


def _energy_of_gaussians(shift: float, one: float, other: float) -> float:
    def apart(gap: float, variance: float) -> float:  # E|z|, z ~ N(gap, variance)
        return math.sqrt(2 * variance / math.pi) * math.exp(-(gap**2) / (2 * variance)) + gap * math.erf(
            gap / math.sqrt(2 * variance)
        )

    return 2 * apart(shift, one**2 + other**2) - apart(0, 2 * one**2) - apart(0, 2 * other**2)


def test_sliced_wasserstein_of_a_translation_is_a_squared_distance_over_the_dimension() -> None:
    gap = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    expected = float((gap @ unit_vectors(0, 4, 256, torch.float64, torch.device("cpu"))).square().mean())
    assert _value(Sliced(), REAL, REAL + gap) == pytest.approx(expected)
    assert _value(Sliced(num=40000), REAL, REAL + gap) == pytest.approx(float(gap @ gap) / 4, rel=0.02)


def test_sliced_energy_is_energy_on_average() -> None:
    for real, syn, b, a in ((REAL, SYN, None, None), (REAL, SYN, B, A)):
        exact = _value(Energy(), real, syn, b, a)
        assert _value(Sliced("energy", num=40000), real, syn, b, a) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("metric", ["wasserstein", "energy"])
def test_sliced_weights_are_points_repeated(metric: Any) -> None:
    by, times, more = Sliced(metric), torch.tensor([1, 2, 0, 3, 1, 1, 2]), torch.tensor([2, 1, 1, 3])
    plain = _value(by, REAL.repeat_interleave(times, 0), SYN.repeat_interleave(more, 0))
    assert _value(by, REAL, SYN, times.double(), more.double()) == pytest.approx(plain)


@pytest.mark.parametrize("metric", ["wasserstein", "energy"])
def test_sliced_survives_a_common_offset_in_float32(metric: Any) -> None:
    exact = _value(Sliced(metric), REAL, SYN)
    assert _value(Sliced(metric), (REAL + 50).float(), (SYN + 50).float()) == pytest.approx(exact, rel=1e-3)


def test_summaries_of_others_are_refused() -> None:
    owner = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="Sliced was given the sums of another discrepancy"):
        Sliced()(Mean().summarise(SYN, owner, 1), SYN, owner)
    for other in (Mmd(), Sliced(num=8)):
        with pytest.raises(InputError, match="sliced was given the summary of another discrepancy, or of other opt"):
            Sliced()(other.summarise(SYN, owner, 1), SYN, owner)


@pytest.mark.parametrize(
    ("part", "option", "message"),
    [
        (Sliced, {"metric": "energi"}, r'by\.metric = "energi": no such metric\. Did you mean "energy"\?'),
        (Sliced, {"num": 0}, r"by\.num = 0: give at least 1 direction"),
    ],
)
def test_options_out_of_range_are_refused(part: Any, option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        part(**option)
