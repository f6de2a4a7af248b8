"""Known values of the discrepancies, and what only some of them promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from latentdc.discrepancies import (
    CharacteristicFunction,
    Discrepancy,
    Energy,
    Mean,
    Mmd,
    Moments,
    Norm,
    Polynomial,
    RandomFourier,
)
from latentdc.discrepancies.base import Summary, group, hold
from latentdc.discrepancies.directions import normal_vectors
from latentdc.discrepancies.kernels import FACTORS, mean_square_distance
from latentdc.errors import InputError

ONE = torch.zeros(1, dtype=torch.int64)


def _dirac(by: Discrepancy, gap: float) -> float:
    at = torch.zeros(1, 2, dtype=torch.float64)
    there = torch.tensor([[gap, 0.0]], dtype=torch.float64)
    return float(by(by.summarise(at, ONE, 1), there, ONE))


def _normal(num: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(num, dim, generator=rng, dtype=torch.float64)
    return (drawn - drawn.mean(0)) / drawn.std(0, correction=0) + shift  # exact first moments: less noise in the tests


@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
def test_two_diracs(gap: float) -> None:
    kernel = sum(math.exp(-(gap**2) / (2.0 * factor)) for factor in FACTORS)
    assert _dirac(Mean(), gap) == pytest.approx(gap**2)
    assert _dirac(Moments(), gap) == pytest.approx(gap**2), "a point has no spread"
    assert _dirac(Polynomial(), gap) == pytest.approx((gap**2 + 1) ** 2 - 1)
    assert _dirac(Energy(), gap) == pytest.approx(2 * gap)
    assert _dirac(Mmd(bandwidth=2.0), gap) == pytest.approx(10 - 2 * kernel)
    assert _dirac(RandomFourier(num=20000, bandwidth=2.0), gap) == pytest.approx(10 - 2 * kernel, abs=0.1)


def test_two_gaussians() -> None:
    dim, shift, num = 3, 0.7, 1500
    x, y = _normal(num, dim, 0), _normal(num, dim, 1, shift)
    owner = torch.zeros(num, dtype=torch.int64)

    def expected(square: float) -> float:  # E Σ_f exp(−‖x − y‖² / 2f), x − y ~ N(m, 2 I)
        lengths = [2 * factor for factor in FACTORS]
        return sum((1 + 4 / h) ** (-dim / 2) * math.exp(-square / (h + 4)) for h in lengths)

    by = Mmd(bandwidth=2.0)
    value = float(by(by.summarise(y, owner, 1), x, owner))
    bias = 2 * (5 - expected(0)) / num  # a V-statistic counts each point with itself
    assert value == pytest.approx(2 * expected(0) - 2 * expected(dim * shift**2) + bias, abs=0.02)


def test_energy_of_two_gaussians() -> None:
    shift, num = 1.0, 3000
    owner = torch.zeros(num, dtype=torch.int64)
    by = Energy()
    value = float(by(by.summarise(_normal(num, 1, 1, shift), owner, 1), _normal(num, 1, 0), owner))
    spread = 2 / math.sqrt(math.pi)  # E|x − x'|, x − x' ~ N(0, 2)
    across = spread * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    assert value == pytest.approx(2 * across - 2 * spread, abs=0.05)


def test_moments_of_two_gaussians_and_an_exponential() -> None:
    num, shift, width = 20000, 0.5, 1.5
    owner, by = torch.zeros(num, dtype=torch.int64), Moments(variance=2.0, skew=3.0)
    normal, wider = _normal(num, 1, 0), _normal(num, 1, 1) * width + shift
    value = float(by(by.summarise(normal, owner, 1), wider, owner))
    assert value == pytest.approx(shift**2 + 2 * (width**2 - 1) ** 2, rel=0.05)
    even = (torch.arange(num, dtype=torch.float64)[:, None] + 0.5) / num
    skewed = -torch.log1p(-even) - 1  # quantiles of an exponential: mean 0, variance 1, third moment 2
    assert float(by(by.summarise(normal, owner, 1), skewed, owner)) == pytest.approx(3 * 2**2, rel=0.05)


def test_a_moment_without_weight_is_not_summed() -> None:
    real, syn, owner = _normal(9, 4, 0), _normal(9, 4, 1, 0.3), torch.zeros(9, dtype=torch.int64)
    mean, plain = Mean(), Moments(variance=0.0, skew=0.0)
    assert torch.equal(plain.summarise(real, owner, 1).values, mean.summarise(real, owner, 1).values)
    torch.testing.assert_close(
        plain(plain.summarise(real, owner, 1), syn, owner), mean(mean.summarise(real, owner, 1), syn, owner)
    )
    widths = [
        Moments(variance=v, skew=q).summarise(real, owner, 1).values.shape[1] for v, q in ((1, 0), (0, 1), (1, 1))
    ]
    assert widths == [8, 12, 12]
    apart = [
        float(by(by.summarise(real, owner, 1), syn, owner)) for by in (Moments(0, 0), Moments(1, 0), Moments(0, 1))
    ]
    every = Moments()
    assert float(every(every.summarise(real, owner, 1), syn, owner)) == pytest.approx(apart[1] + apart[2] - apart[0])


def test_moments_survive_a_common_offset() -> None:
    real, syn, owner = _normal(60, 8, 0), _normal(60, 8, 1) ** 3, torch.zeros(60, dtype=torch.int64)
    by = Moments()
    exact = float(by(by.summarise(real, owner, 1), syn, owner))
    far = float(by(by.summarise(real + 1000, owner, 1), syn + 1000, owner))
    assert far == pytest.approx(exact, rel=1e-6)
    single = float(by(by.summarise((real + 50).float(), owner, 1), (syn + 50).float(), owner))
    assert single == pytest.approx(exact, rel=1e-3)


def test_polynomial_compares_moments_up_to_its_degree() -> None:
    real, syn, owner = _normal(9, 3, 0, 0.2), _normal(9, 3, 1), torch.zeros(9, dtype=torch.int64)

    def value(by: Discrepancy) -> float:
        return float(by(by.summarise(real, owner, 1), syn, owner))

    means = value(Mean())
    assert value(Polynomial(degree=1, offset=3.0)) == pytest.approx(means)
    seconds = float((syn.T @ syn / 9 - real.T @ real / 9).square().sum())
    assert value(Polynomial(offset=0.5)) == pytest.approx(seconds + 2 * 0.5 * means)


def test_rff_agrees_with_mmd() -> None:
    """Same points, same lengths: the estimate nears the exact value as frequencies are added."""
    owner_real, owner_syn = torch.arange(2).repeat(60), torch.arange(2).repeat(8)
    real, syn = _normal(120, 16, 0), _normal(16, 16, 1, 0.3)
    exact = Mmd()
    target = float(exact(exact.summarise(real, owner_real, 2), syn, owner_syn))
    errors = []
    for num in (200, 20000):
        found = [RandomFourier(num=num, seed=seed) for seed in range(5)]
        values = [float(by(by.summarise(real, owner_real, 2), syn, owner_syn)) for by in found]
        errors.append(math.sqrt(sum((value - target) ** 2 for value in values) / 5) / target)
    assert errors[1] < 0.02
    assert errors[1] < 0.4 * errors[0]


def _waves_apart(alpha: float, real: torch.Tensor, syn: torch.Tensor, **options: Any) -> float:
    by, (owner_real, owner_syn) = (
        CharacteristicFunction(alpha=alpha, **options),
        (torch.zeros(len(side), dtype=torch.int64) for side in (real, syn)),
    )
    return float(by(by.summarise(real, owner_real, 1), syn, owner_syn))


def test_amplitude_and_phase_add_up_to_mmd() -> None:
    real, syn = _normal(40, 3, 0), _normal(6, 3, 1, 0.4)
    plain: dict[str, Any] = {"normalise": False, "root": False}
    whole = _waves_apart(0.0, real, syn, **plain) + _waves_apart(1.0, real, syn, **plain)
    phases = [side @ normal_vectors(0, 3, 1024, torch.float64, torch.device("cpu")) for side in (real, syn)]
    gap = torch.polar(torch.ones_like(phases[0]), phases[0]).mean(0)
    gap = gap - torch.polar(torch.ones_like(phases[1]), phases[1]).mean(0)
    assert whole == pytest.approx(float(gap.abs().square().mean()), rel=1e-12)
    kernels = [torch.exp(-torch.cdist(a, b).square() / 2).mean() for a, b in ((syn, syn), (syn, real), (real, real))]
    exact = float(kernels[0] - 2 * kernels[1] + kernels[2])
    many = {**plain, "num": 40000}
    assert _waves_apart(0.0, real, syn, **many) + _waves_apart(1.0, real, syn, **many) == pytest.approx(exact, rel=0.02)
    rooted = _waves_apart(0.5, real, syn, normalise=False, weight=300.0)
    assert rooted == pytest.approx(300 * float(gap.abs().mean()) / math.sqrt(2), rel=1e-9)


def test_characteristic_functions_of_diracs_and_gaussians() -> None:
    at, there = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.5, 0.0]], dtype=torch.float64)
    options: dict[str, Any] = {"normalise": False, "root": False, "num": 20000}
    assert _waves_apart(1.0, at, there, **options) == pytest.approx(0, abs=1e-12), "all amplitudes are 1"
    assert _waves_apart(0.0, at, there, **options) == pytest.approx(2 - 2 * math.exp(-(1.5**2) / 2), rel=0.02)
    narrow = torch.special.ndtri((torch.arange(300, dtype=torch.float64)[:, None] + 0.5) / 300)  # even quantiles
    # E_t (e^{−t²/2} − e^{−2t²})² over t ~ N(0, 1), from E e^{−a t²} = (1 + 2a)^{−1/2}
    spread = 3**-0.5 - 2 * 6**-0.5 + 9**-0.5
    assert _waves_apart(1.0, narrow, 2 * narrow, **options) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_characteristic_functions_of_equal_sets_have_a_finite_gradient(alpha: float, dtype: torch.dtype) -> None:
    real, owner, by = _normal(9, 4, 0).to(dtype), torch.zeros(9, dtype=torch.int64), CharacteristicFunction(alpha=alpha)
    syn = real.clone().requires_grad_()
    value = by(by.summarise(real, owner, 1), syn, owner)
    value.backward()
    assert float(value.detach()) == pytest.approx(1e-6)
    assert syn.grad is not None
    assert float(syn.grad.abs().max()) < 1e-6
    zero = torch.zeros(9, 4, dtype=dtype, requires_grad=True)  # no direction to scale to unit length
    by(by.summarise(real, owner, 1), zero, owner).backward()
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())


def test_characteristic_functions_see_directions_only() -> None:
    real, syn = _normal(9, 4, 0), _normal(5, 4, 1)
    assert _waves_apart(0.5, 3 * real, syn) == pytest.approx(_waves_apart(0.5, real, syn))


def test_lengths_come_from_real_points_per_class() -> None:
    points = torch.tensor([[0.0], [2.0], [5.0], [5.0], [10.0], [14.0]])
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    lengths = mean_square_distance(points, owner, 3)
    torch.testing.assert_close(lengths, torch.tensor([4.0, 50.0, 16.0], dtype=torch.float64))


def test_a_length_without_spread_is_that_of_the_points_themselves() -> None:
    points = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert mean_square_distance(points, torch.tensor([0, 1]), 2).tolist() == [50.0, 1.0]
    alone = mean_square_distance(points[:1], torch.tensor([0]), 3)
    assert alone.tolist() == [50.0, 50.0, 50.0]  # those without a point take the mean of the others'


def test_lengths_ignore_a_common_offset() -> None:
    points, owner = _normal(50, 4, 0).float(), torch.zeros(50, dtype=torch.int64)
    near, far = mean_square_distance(points, owner, 1), mean_square_distance(points + 100, owner, 1)
    torch.testing.assert_close(near, far, rtol=1e-4, atol=0)


def test_pairwise_survives_a_common_offset_in_float32() -> None:
    real, syn, owner = _normal(60, 8, 0), _normal(60, 8, 1, 0.2), torch.zeros(60, dtype=torch.int64)
    for by in (Mmd(), Energy()):
        exact = by(by.summarise(real, owner, 1), syn, owner)
        moved = by(by.summarise((real + 50).float(), owner, 1), (syn + 50).float(), owner)
        assert float(moved) == pytest.approx(float(exact), rel=2e-2)


def test_group_pads_and_keeps_order() -> None:
    points = torch.arange(5.0)[:, None]
    grouped, weights = group(points, torch.tensor([4, 1, 4, 4, 1]), torch.tensor([1, 4]))
    assert grouped[:, :, 0].tolist() == [[1.0, 4.0, 0.0], [0.0, 2.0, 3.0]]
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]))


def test_summaries_of_other_lengths_do_not_add() -> None:
    one = Summary(torch.ones(2, 3), torch.ones(2), scale=torch.ones(2))
    with pytest.raises(InputError, match="kernel lengths"):
        _ = one + Summary(torch.ones(2, 3), torch.ones(2), scale=torch.full((2,), 2.0))
    with pytest.raises(InputError, match="shape"):
        _ = one - Summary(torch.ones(2, 4), torch.ones(2), scale=torch.ones(2))


def test_wrong_summaries_and_values_are_refused() -> None:
    points, owner = _normal(4, 3, 0), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="another discrepancy"):
        Mmd()(Mean().summarise(points, owner, 1), points, owner)
    with pytest.raises(InputError, match="another discrepancy"):
        RandomFourier()(Mean().summarise(points, owner, 1), points, owner)
    with pytest.raises(InputError, match="moments was given the summary of another discrepancy"):
        Moments()(Mean().summarise(points, owner, 1), points, owner)
    with pytest.raises(InputError, match="cf was given the summary of another discrepancy, or of other options"):
        CharacteristicFunction()(CharacteristicFunction(num=8).summarise(points, owner, 1), points, owner)
    with pytest.raises(InputError, match="Mmd was given points without their own term"):
        Mmd()(hold(points, owner, 1), points, owner)
    with pytest.raises(InputError, match="bandwidth"):
        Mmd(bandwidth=0.0)
    with pytest.raises(InputError, match="bandwidth"):
        RandomFourier(bandwidth=-1.0)
    with pytest.raises(InputError, match="at least 5"):
        RandomFourier(num=4)


@pytest.mark.parametrize(
    ("part", "option", "message"),
    [
        (Moments, {"variance": -1.0}, r"by\.variance = -1\.0: give a finite weight of at least 0"),
        (Moments, {"skew": math.inf}, r"by\.skew = inf: give a finite weight"),
        (CharacteristicFunction, {"num": 0}, r"by\.num = 0: give at least 1 frequency"),
        (CharacteristicFunction, {"alpha": 1.5}, r"by\.alpha = 1\.5: give a share of the amplitude between 0 and 1"),
        (CharacteristicFunction, {"weight": 0.0}, r"by\.weight = 0\.0: give a positive, finite factor"),
        (Polynomial, {"degree": 0}, r"by\.degree = 0: give at least 1"),
        (Polynomial, {"offset": -0.5}, r"by\.offset = -0\.5: give a finite number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(part: Any, option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        part(**option)


def test_norms_are_lengths() -> None:
    gap = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    for p, length in ((1, 7.0), (2, 5.0)):
        by = Norm(p=p)
        assert float(by(by.summarise(torch.zeros(1, 2), ONE, 1), gap, ONE)) == pytest.approx(length)
    with pytest.raises(InputError, match=r"by\.p = 3: give 1 .* or 2"):
        Norm(p=3)
