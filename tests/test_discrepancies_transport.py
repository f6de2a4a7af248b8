"""Known values of the discrepancies that move mass: on lines, at a blur, to atoms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from reference.sliced_loop import sliced_loop
from torch import Tensor

from latentdc.discrepancies import Atoms, Discrepancy, Energy, Mean, Mmd, Sinkhorn, Sliced, sinkhorn
from latentdc.discrepancies.atoms import quantise
from latentdc.discrepancies.directions import unit_vectors
from latentdc.discrepancies.transport import exact_plan
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


HALVES = [(2, Mean()), (1, Energy())]


@pytest.mark.parametrize(("p", "half"), HALVES)
@pytest.mark.parametrize("weights", [(None, None), (B, A)])
def test_sinkhorn_of_infinite_blur_is_half_of_mean_or_energy(p: Any, half: Discrepancy, weights: Any) -> None:
    expected = _value(half, REAL, SYN, *weights) / 2
    assert _value(Sinkhorn(math.inf, p), REAL, SYN, *weights) == pytest.approx(expected)
    assert _value(Sinkhorn(1e6, p), REAL, SYN, *weights) == pytest.approx(expected, rel=1e-5)
    single = _value(Sinkhorn(1e6, p), REAL.float(), SYN.float(), *weights)
    assert single == pytest.approx(expected, rel=1e-4), "what a recipe can say, in the dtype it runs in"


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("weights", [(None, None), (B, A)])
def test_sinkhorn_nears_exact_transport_as_the_blur_shrinks(p: Any, weights: Any) -> None:
    exact = _value(Sinkhorn(0.0, p), REAL, SYN, *weights)
    errors = [abs(_value(Sinkhorn(blur, p), REAL, SYN, *weights) - exact) for blur in (1.0, 0.3, 0.1, 0.03, 0.001)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 * exact


@pytest.mark.parametrize("blur", [0.0, 0.01, 0.3, 10.0, math.inf])
def test_sinkhorn_of_a_translation_is_half_its_square_at_any_blur(blur: float) -> None:
    gap = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    assert _value(Sinkhorn(blur), REAL, REAL + gap) == pytest.approx(float(gap @ gap) / 2)
    at = torch.zeros(1, 4, dtype=torch.float64)
    for p in (1, 2):
        expected = {1: math.sqrt(5.25), 2: 5.25 / 2}[p]
        assert _value(Sinkhorn(blur, p), at, (at + gap).expand(3, 4)) == pytest.approx(expected), "two Diracs"


@pytest.mark.parametrize("p", [1, 2])
def test_sinkhorn_without_blur_on_a_line_is_in_order(p: Any) -> None:
    """On a line the optimal plan keeps the order."""
    real, syn = REAL[:, :1].repeat(4, 1), SYN[:, :1].repeat(7, 1)
    gaps = (real.sort(0).values - syn.sort(0).values).abs()
    assert _value(Sinkhorn(0.0, p), REAL[:, :1], SYN[:, :1]) == pytest.approx(float((gaps**p).mean()) / p)
    assert 2 * _value(Sinkhorn(0.0), REAL[:, :1], SYN[:, :1], B, A) == pytest.approx(
        _value(Sliced(), REAL[:, :1], SYN[:, :1], B, A)
    )


def test_sinkhorn_without_blur_pulls_towards_the_plan() -> None:
    real, zeros, by = (
        SYN[torch.tensor([2, 0, 3, 1])] + 0.01 * REAL[:4],
        torch.zeros(4, dtype=torch.int64),
        Sinkhorn(0.0),
    )
    syn = SYN.clone().requires_grad_()
    by(by.summarise(real, zeros, 1), syn, zeros).backward()
    torch.testing.assert_close(syn.grad, (SYN - real[torch.tensor([1, 3, 0, 2])]) / 4)


def test_sinkhorn_is_one_value_in_both_precisions_and_wherever_the_origin_is() -> None:
    for blur, p in itertools.product((0.0, 0.05, math.inf), (1, 2)):
        by = Sinkhorn(blur, p)  # type: ignore[arg-type]
        single = _value(by, (REAL + 50).float(), (SYN + 50).float(), B, A)
        assert single == pytest.approx(_value(by, REAL, SYN, B, A), rel=1e-4)


def test_what_does_not_settle_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinkhorn, "_ROUNDS", 3)
    with pytest.raises(InputError, match=r"did not settle in 3 rounds at by\.blur = 0\.05 .*blur = 0 for exact"):
        _value(Sinkhorn(0.05), REAL, SYN)


def test_exact_plan_of_equal_masses_is_the_best_permutation() -> None:
    for seed in range(10):
        cost = _points(5, 5, seed).square().round(decimals=seed % 2)  # with ties and without
        plan = exact_plan(cost, torch.ones(5), torch.ones(5))
        best = min(sum(float(cost[i, j]) for i, j in enumerate(order)) for order in itertools.permutations(range(5)))
        assert float((plan * cost).sum()) == pytest.approx(best)
        assert plan.sum(0).tolist() == plan.sum(1).tolist() == [1] * 5
        assert set(plan.flatten().tolist()) == {0, 1}


def test_an_atom_is_the_mean() -> None:
    assert _value(Atoms(), REAL, SYN[:1], B) == pytest.approx(_value(Mean(), REAL, SYN[:1], B))
    assert _value(Atoms(squared=False), REAL, SYN[:1], B) == pytest.approx(_value(Mean(), REAL, SYN[:1], B) ** 0.5)


def test_atoms_of_clear_clusters_are_their_means_and_masses() -> None:
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 2, 2, 2, 0, 1, 2, 2])
    points, weights = centres[label] + 0.1 * _points(10, 2, 3), torch.ones(10, dtype=torch.float64) / 10
    atoms, mass = quantise(points, weights, 3)
    order = torch.cdist(centres, atoms).argmin(1)
    for cls in range(3):
        torch.testing.assert_close(atoms[order[cls]], points[label == cls].mean(0))
    torch.testing.assert_close(mass[order], torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
    # The synthetic points in any order are given the cluster next to them.
    gap = torch.tensor([0.3, -0.4], dtype=torch.float64)
    moved = atoms[torch.tensor([2, 0, 1])] + gap
    assert _value(Atoms(), points, moved) == pytest.approx(0.25)
    assert _value(Atoms(squared=False), points, moved) == pytest.approx(0.5)
    heavy = torch.where(label == 0, 4.0, 1.0)
    torch.testing.assert_close(
        quantise(points, heavy / heavy.sum(), 3)[1].sort().values, torch.tensor([3.0, 5.0, 8.0]).double() / 16
    )


def test_atoms_are_near_the_best_quantiser() -> None:
    """Of all ways to cut eight points in two; Lloyd's rounds end in a local optimum."""
    for seed in range(5):
        points, weights = _points(8, 2, seed), torch.full((8,), 1 / 8, dtype=torch.float64)
        atoms, _ = quantise(points, weights, 2)
        found = float(torch.cdist(points, atoms).square().amin(1).sum())
        best = math.inf
        for cut in itertools.product((False, True), repeat=7):
            side = torch.tensor([*cut, True])
            if not all(cut):
                best = min(
                    best, sum(float(p.var(0, correction=0).sum()) * len(p) for p in (points[side], points[~side]))
                )
        assert found <= 1.1 * best


def test_more_synthetic_points_than_different_real_ones() -> None:
    real = REAL[:2].repeat(2, 1)
    syn = torch.cat([REAL[:2], SYN]).requires_grad_()
    owners = [torch.zeros(len(side), dtype=torch.int64) for side in (real, syn)]
    value = Atoms()(Atoms().summarise(real, owners[0], 1), syn, owners[1])
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    assert syn.grad is not None
    assert float(syn.grad.abs().max()) < 1e-9, "what is left over is not pulled"


def test_atoms_survive_a_common_offset_in_float32() -> None:
    assert _value(Atoms(), (REAL + 50).float(), (SYN + 50).float(), B) == pytest.approx(
        _value(Atoms(), REAL, SYN, B), rel=1e-3
    )


def test_summaries_of_others_are_refused() -> None:
    owner = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="Sliced was given the sums of another discrepancy"):
        Sliced()(Mean().summarise(SYN, owner, 1), SYN, owner)
    with pytest.raises(InputError, match="sinkhorn was given the summary of another discrepancy"):
        Sinkhorn()(Sliced().summarise(SYN, owner, 1), SYN, owner)
    for other in (Mmd(), Sliced(num=8)):
        with pytest.raises(InputError, match="sliced was given the summary of another discrepancy, or of other opt"):
            Sliced()(other.summarise(SYN, owner, 1), SYN, owner)


@pytest.mark.parametrize(
    ("part", "option", "message"),
    [
        (Sliced, {"metric": "energi"}, r'by\.metric = "energi": no such metric\. Did you mean "energy"\?'),
        (Sliced, {"num": 0}, r"by\.num = 0: give at least 1 direction"),
        (Sinkhorn, {"blur": -0.1}, r"by\.blur = -0\.1: give 0 \(exact transport\) or a positive relative length"),
        (Sinkhorn, {"p": 3}, r"by\.p = 3: give 1 \(cost ‖x − y‖\) or 2 \(cost ½‖x − y‖²\)"),
        (Sinkhorn, {"tolerance": 0.0}, r"by\.tolerance = 0\.0: give a share of the mass between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(part: Any, option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        part(**option)
