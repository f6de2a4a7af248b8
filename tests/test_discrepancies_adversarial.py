"""Characteristic functions against an adversary: it climbs from the fixed draw to where the sets differ more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.discrepancies import AdversarialCharacteristicFunction, CharacteristicFunction
from latentdc.discrepancies.directions import normal_vectors
from latentdc.errors import InputError, RecipeError
from latentdc.recipe import build, load_recipe, parse_recipe

REAL_OWNER, SYN_OWNER = torch.arange(2).repeat(9), torch.arange(2).repeat(3)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"alpha": 0.2, "num": 40, "seed": 3},
    {"normalise": False, "root": False, "weight": 300.0},
]


def _normal(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


REAL, SYN = _normal(18, 5, 0), _normal(6, 5, 1, 0.3)


def _value(by: CharacteristicFunction) -> float:
    return float(by(by.summarise(REAL, REAL_OWNER, 2), SYN, SYN_OWNER))


@pytest.mark.parametrize("options", OPTIONS)
def test_without_ascents_it_is_the_fixed_one(options: dict[str, Any]) -> None:
    still = AdversarialCharacteristicFunction(**options, ascents=0)
    assert _value(still) == pytest.approx(_value(CharacteristicFunction(**options)), rel=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
def test_ascents_raise_it(options: dict[str, Any]) -> None:
    values = [_value(AdversarialCharacteristicFunction(**options, ascents=k)) for k in range(6)]
    assert values == sorted(values)
    assert values[1] > values[0]
    assert values[5] > 1.1 * values[0]


@pytest.mark.parametrize("rate", [0.01, 3.0, 30.0])
def test_it_never_falls_below_the_fixed_one_however_far_it_steps(rate: float) -> None:
    fixed = _value(CharacteristicFunction(num=64))
    assert _value(AdversarialCharacteristicFunction(num=64, ascents=3, rate=rate)) >= fixed * (1 - 1e-12)


def test_sixteen_frequencies_share_scales_that_stay_near_one() -> None:
    by = AdversarialCharacteristicFunction(num=40, ascents=3, rate=0.25)
    drawn = normal_vectors(0, 5, 40, torch.float64, torch.device("cpu"))
    logs = (by.frequencies(by.summarise(REAL, REAL_OWNER, 2), SYN, SYN_OWNER) / drawn).log()  # (2, 5, 40)
    for some in logs.split(16, dim=2):
        torch.testing.assert_close(some, some[..., :1].expand_as(some))
    assert float(logs.abs().max()) == pytest.approx(3 * 0.25)
    assert not torch.equal(logs[0], logs[1]), "each class has its own"


def test_it_turns_to_the_axis_on_which_the_sets_differ() -> None:
    real, syn = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    by, owner = AdversarialCharacteristicFunction(num=64, normalise=False), torch.zeros(1, dtype=torch.int64)
    found = by.frequencies(by.summarise(real, owner, 1), syn, owner)[0]
    scales = found / normal_vectors(0, 2, 64, torch.float64, torch.device("cpu"))
    assert bool((scales[0] > 2).all())
    assert bool((scales[1] == 1).all()), "nothing is to be found there"


def test_it_finds_its_frequencies_where_nothing_else_has_a_graph() -> None:
    by = AdversarialCharacteristicFunction(num=32)
    with torch.no_grad():
        assert _value(by) > _value(CharacteristicFunction(num=32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ascents": -1}, r"by\.ascents = -1: give at least 0 steps"),
        ({"rate": 0.0}, r"by\.rate = 0\.0: give a positive, finite step"),
        ({"rate": float("nan")}, r"by\.rate = nan: give a positive, finite step"),
        ({"num": 0}, r"by\.num = 0: give at least 1 frequency"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdversarialCharacteristicFunction(**options)


def test_the_sums_of_the_fixed_one_are_refused() -> None:
    with pytest.raises(InputError, match="was given the sums of another discrepancy"):
        AdversarialCharacteristicFunction()(CharacteristicFunction().summarise(REAL, REAL_OWNER, 2), SYN, SYN_OWNER)


def test_recipes_ask_for_it_by_name_and_a_sketch_gives_it_landmarks(tiny_store: ClassStore) -> None:
    recipe = load_recipe("ncfm", settings=["objective.by.kind=cf-adversarial", "objective.by.ascents=2"])
    assert recipe.objective.by.options == {"weight": 300.0, "ascents": 2}
    sketched = {"images_per_class": 1, "objective": {"by": "cf-adversarial"}, "source": {"kind": "sketch"}}
    with pytest.raises(RecipeError, match=r'by = "cf-adversarial": .*give it weighted ones .*landmarks = 100'):
        build(parse_recipe({**sketched, "decoder": "pixels"}), tiny_store.spec)
    sketched["source"]["landmarks"] = 3
    build(parse_recipe({**sketched, "decoder": "pixels"}), tiny_store.spec)
