"""Penalties: each row is held to the real image it started from, from any source and through any formation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentdc.condense import condense
from latentdc.data.augment import DSA, NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Mean
from latentdc.errors import InputError, RecipeError
from latentdc.latents import decode
from latentdc.networks import FixedPool, FreshPool, fingerprint
from latentdc.objectives import OBJECTIVES, PENALTIES, Match, Objective, Pairwise, Penalised
from latentdc.recipe import (
    build,
    citations,
    dry_run,
    identity,
    make_bank,
    make_source,
    parse_recipe,
    start_batch,
    to_toml,
    with_start,
)
from latentdc.representations import Features
from latentdc.sketch import Sketch, sketch
from latentdc.source import Minibatches, Source, Started
from latentdc.types import Batch

TINY = {
    "images_per_class": 2,
    "steps": 3,
    "init": "real",
    "objective": {"penalties": [{"kind": "pairwise", "weight": 0.5}]},
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6, "num_pairs": 2, "batch_size": 8},
}


def _source(kind: str, store: ClassStore) -> Source:
    if kind == "sketch":
        pool = FixedPool("mlp", store.spec, 0, 2, width=8)
        return sketch(store, pool, DSA(), Features(), Mean(), progress=False)
    fresh = FreshPool("mlp", store.spec, 0, width=8)
    return Minibatches(store, UniformSampler(store, 4), fresh, DSA(), seed=0)


@pytest.fixture(params=["mini-batches", "sketch"])
def started(request: pytest.FixtureRequest, tiny_store: ClassStore) -> tuple[Started, Batch]:
    """Rows 0 to 5, two of each class, that began as six real images and have moved."""
    start = tiny_store.batch([0, 5, 12, 14, 24, 30])
    syn = start._replace(x=(start.x + 0.1).requires_grad_(), row=torch.arange(6))
    return Started(_source(request.param, tiny_store), start.x), syn


@pytest.mark.parametrize("name", PENALTIES)
def test_the_laws_of_objectives_hold(name: str, started: tuple[Started, Batch]) -> None:
    (source, syn), penalty = started, PENALTIES[name]()
    assert penalty.cite
    view = source.view(1)
    if penalty.needs_images and isinstance(source.source, Sketch):
        with pytest.raises(InputError, match="a sketch does not hold"):
            penalty(view, syn)
        return
    before, mode = fingerprint(view.net), view.net.training
    loss = penalty(view, syn)
    assert loss.shape == ()
    loss.backward()
    assert syn.x.grad is not None
    assert bool((syn.x.grad.flatten(1).abs().sum(1) > 0).all())
    assert (fingerprint(view.net), view.net.training) == (before, mode)
    assert all(parameter.grad is None for parameter in view.net.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert penalty(view, syn).dtype == torch.float32
    if penalty.scope == "all":
        return
    parts = []
    for rows in (syn.owner == 1, syn.owner != 1):
        parts.append(penalty(source.view(1), Batch(syn.x[rows], syn.y[rows], syn.owner[rows], None, syn.row[rows])))
    torch.testing.assert_close(sum(parts), loss)


def test_pairwise_equals_its_loop(started: tuple[Started, Batch]) -> None:
    source, syn = started
    view, weights = source.view(2), torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0, 2.0])
    real, fake = (view.net.observe(view.augment(each).x).last for each in (view.begun(syn), syn))
    gaps = [float(((a - b) ** 2).sum()) for a, b in zip(real.detach(), fake.detach(), strict=True)]
    plain = sum((gaps[i] + gaps[i + 1]) / 2 for i in (0, 2, 4))
    assert float(Pairwise(weight=0.3)(view, syn).detach()) == pytest.approx(0.3 * plain, rel=1e-5)
    heavy = (gaps[0] + 3 * gaps[1]) / 4 + sum((gaps[i] + gaps[i + 1]) / 2 for i in (2, 4))
    assert float(Pairwise(weight=1.0)(view, syn._replace(w=weights)).detach()) == pytest.approx(heavy, rel=1e-5)
    assert float(Pairwise(layer="all")(view, syn).detach()) > float(Pairwise()(view, syn).detach())


def test_pairwise_is_zero_at_the_start_whatever_the_order_of_rows(started: tuple[Started, Batch]) -> None:
    source, syn = started
    rows = torch.tensor([4, 0, 3])
    begun = Batch(source.start[rows], syn.y[rows], syn.owner[rows], None, rows)
    assert float(Pairwise()(source.view(0), begun)) == 0
    assert float(Pairwise()(source.view(0), begun._replace(row=rows.flip(0)))) > 0


def test_started_changes_nothing_else_about_a_source(started: tuple[Started, Batch], tiny_store: ClassStore) -> None:
    source, syn = started
    view, inner = source.view(4), source.source.view(4)
    assert source.spec == tiny_store.spec
    assert source.state_dict() == source.source.state_dict()
    source.load_state_dict(source.state_dict())
    source.advance(4)
    match = Match(Features(), Mean())
    assert torch.equal(match(view, syn), match(inner, syn))
    assert torch.equal(view.rng("x").get_state(), inner.rng("x").get_state())
    net = FixedPool("mlp", tiny_store.spec, 9, 1, width=8).network(0)
    view.net = net
    assert view.inner.net is net, "both sides look through the network that the loop puts in place"


def test_penalised_is_the_sum(started: tuple[Started, Batch]) -> None:
    class Whole(Objective):
        scope = "all"

        def forward(self, view: Any, syn: Any) -> torch.Tensor:
            return torch.tensor(2.0)

    class Half(Objective):
        needs_start = True

        def forward(self, view: Any, syn: Any) -> torch.Tensor:
            return torch.tensor(0.5)

    both = Penalised(Whole(), [Half(), Half()])
    assert float(both(started[0].view(0), started[1])) == 3
    assert (both.scope, both.needs_start) == ("all", True)
    assert Penalised(Half(), []).scope == "class"
    assert not Match(Features(), Mean()).needs_start
    assert not set(OBJECTIVES) & set(PENALTIES)


@pytest.mark.parametrize("kind", ["minibatches", "sketch"])
@pytest.mark.parametrize("formation", [None, "tiles"])
def test_a_recipe_holds_rows_to_their_start(kind: str, formation: str | None, tiny_store: ClassStore) -> None:
    moved: dict[float, float] = {}
    for weight in (1e-3, 1e3):
        changes = {"source.kind": kind, "formation": formation, "optim.lr": 0.02, "augment": "none"}
        changes["objective.penalties"] = [{"kind": "pairwise", "weight": weight}]
        built = build(parse_recipe(TINY, overrides=changes), tiny_store.spec)
        bank = make_bank(built, tiny_store)
        source = with_start(built, make_source(built, tiny_store, progress=False), tiny_store)
        begun = decode(built.decoder, bank, formation=built.formation)
        torch.testing.assert_close(source.view(0).begun(begun).x, begun.x, rtol=1e-4, atol=1e-5)  # type: ignore[attr-defined]
        condense(
            built.decoder, bank, built.objective, source, steps=20, optim=built.recipe.optim, seed=0,
            formation=built.formation, progress=False,
        )  # fmt: skip
        ended, distance = decode(built.decoder, bank, formation=built.formation), Pairwise(weight=1.0)
        moved[weight] = sum(float(distance(source.view(step), ended)) for step in range(100, 106))
    assert moved[1e3] < 0.5 * moved[1e-3]


def test_a_learned_formation_is_held_to_its_beginning(tiny_store: ClassStore) -> None:
    built = build(parse_recipe(TINY, overrides={"formation": "hallucinators"}), tiny_store.spec)
    start = start_batch(built, tiny_store)
    source = with_start(built, make_source(built, tiny_store, progress=False), tiny_store)
    assert start is not None
    assert isinstance(source, Started)
    assert built.formation is not None
    assert source.expands == built.formation.expands > 1
    assert len(source.start) == len(start.x) * source.expands
    assert not source.start.requires_grad


def test_penalties_in_recipes_read_write_and_credit(tiny_store: ClassStore) -> None:
    import tomllib

    recipe = parse_recipe(TINY)
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe
    assert parse_recipe({**TINY, "objective": {"penalties": ["pairwise"]}}).objective.penalties[0].options == {}
    assert "zhao2022itgan" in citations(recipe)
    built, plain = (build(each, tiny_store.spec) for each in (recipe, parse_recipe({**TINY, "objective": {}})))
    assert identity(built) != identity(plain)
    assert "objective.penalties" not in identity(plain)
    assert dry_run(built, tiny_store)["step_seconds"] > 0
    unpenalised = make_source(plain, tiny_store, progress=False)
    assert with_start(plain, unpenalised, tiny_store) is unpenalised


@pytest.mark.parametrize(
    ("penalties", "message"),
    [
        (["pairwize"], r'objective\.penalties = "pairwize": no such penalty\. Did you mean "pairwise"'),
        ([{"kind": "pairwise", "weigth": 1.0}], r'objective\.penalties\.weigth: .*Did you mean "weight"'),
        ([{"kind": "pairwise", "weight": 0.0}], r"objective\.penalties \(pairwise\): weight = 0\.0: give a positive"),
        ([{"kind": "pairwise", "layer": "first"}], r'see\.layer = "first"'),
        ("pairwise", r"objective\.penalties = 'pairwise': a list is needed here"),
        ([{"weight": 1.0}], r"objective\.penalties = .*give a name, or a section with kind"),
    ],
)
def test_mistakes_are_answered_with_what_would_do(penalties: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"images_per_class": 1, "objective": {"penalties": penalties}})


def test_a_start_without_images_and_a_source_without_start_are_refused(tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=r'init = "prior" starts from none: use "inversion", "real"'):
        build(parse_recipe(TINY, overrides={"init": "prior"}), tiny_store.spec)
    fresh = FreshPool("mlp", tiny_store.spec, 0, width=8)
    plain = Minibatches(tiny_store, UniformSampler(tiny_store, 4), fresh, NoAugment(), seed=0)
    batch = tiny_store.batch([0])
    with pytest.raises(InputError, match=r"latentdc\.source\.Started\(source, start\)"):
        Pairwise()(plain.view(0), batch)
    with pytest.raises(InputError, match="does not say which stored rows"):
        Pairwise()(Started(plain, batch.x).view(0), batch)
