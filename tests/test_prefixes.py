"""Prefixes: every smaller set is matched, in the order of the bank, whatever is looked at and however compared."""

from __future__ import annotations

import pytest
import torch
from reference.prefixes_loop import prefixes_loop
from torch import Tensor

from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES, Cosine, Mean
from latentdc.errors import InputError, RecipeError
from latentdc.networks import FreshPool
from latentdc.objectives import Match, Prefixes
from latentdc.recipe import build, citations, parse_recipe
from latentdc.representations import REPRESENTATIONS, Features, Gradients
from latentdc.source import Minibatches, MinibatchView
from latentdc.types import Batch

ROWS = torch.tensor([7, 3, 0, 3, 1, 0, 2, 9, 8])
"""Two rows of the first class make two images each; the rows of a class are not in order."""


@pytest.fixture
def view(tiny_store: ClassStore) -> MinibatchView:
    pool = FreshPool("mlp", tiny_store.spec, 0, width=8)
    return Minibatches(tiny_store, UniformSampler(tiny_store, 5), pool, DSA(), seed=0).view(2)


@pytest.fixture
def syn(tiny_store: ClassStore) -> Batch:
    batch = tiny_store.batch([20, 0, 1, 2, 3, 4, 5, 31, 30])
    return batch._replace(x=(batch.x + 0.1).requires_grad_(), row=ROWS)


def _kept(batch: Batch, places: Tensor) -> Batch:
    return Batch(batch.x[places], batch.y[places], batch.owner[places], None, ROWS[places])


@pytest.mark.parametrize("sizes", [None, (1,), (2, 3, 50)])
@pytest.mark.parametrize(("see", "by"), [("features", "mean"), ("features", "mmd"), ("gradients", "cosine")])
def test_value_and_gradient_equal_the_loop(
    see: str, by: str, sizes: tuple[int, ...] | None, view: MinibatchView, syn: Batch
) -> None:
    parts = REPRESENTATIONS[see](), DISCREPANCIES[by]()
    value, match = Prefixes(*parts, sizes=sizes)(view, syn), Match(*parts)
    expected = prefixes_loop(lambda _cls, places: match(view, _kept(syn, places)), syn.owner, ROWS, sizes)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(each, syn.x)[0] for each in (value, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert bool((ours.flatten(1).abs().sum(1) > 0).all())


def test_without_smaller_sizes_it_is_the_match(view: MinibatchView, syn: Batch) -> None:
    whole = Prefixes(Features(), Mean(), sizes=(50,))
    torch.testing.assert_close(whole(view, syn), Match(Features(), Mean())(view, syn))
    lone = _kept(syn, torch.tensor([0]))
    assert torch.equal(Prefixes(Features(), Mean())(view, lone), Match(Features(), Mean())(view, lone))


def test_points_are_seen_once(view: MinibatchView, syn: Batch) -> None:
    seen: list[int] = []
    view.net.first.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))  # type: ignore[attr-defined]
    Prefixes(Features(), Mean())(view, syn)
    assert seen == [15, 9]  # The real images, then the synthetic ones.


def test_weights_come_along(view: MinibatchView, syn: Batch) -> None:
    heavy = Prefixes(Features(), Mean())(view, syn._replace(w=torch.tensor([1.0, 1, 2, 1, 1, 1, 1, 1, 1])))
    assert not torch.allclose(heavy, Prefixes(Features(), Mean())(view, syn))
    even = Prefixes(Features(), Mean())(view, syn._replace(w=torch.full((9,), 0.3)))
    torch.testing.assert_close(even, Prefixes(Features(), Mean())(view, syn))


def test_a_recipe_names_it(tiny_store: ClassStore) -> None:
    recipe = parse_recipe({"images_per_class": 2, "objective": {"kind": "prefixes"}})
    built = build(recipe, tiny_store.spec)
    assert isinstance(built.objective, Prefixes)
    assert built.objective.scope == "class"
    assert {"he2024mdc", "zhao2023dm"} <= set(citations(recipe))


def test_what_it_cannot_do_is_refused(view: MinibatchView, syn: Batch) -> None:
    with pytest.raises(InputError, match="does not say which stored rows its images came from"):
        Prefixes(Features(), Mean())(view, syn._replace(row=None))
    for sizes in ((), (0, 2)):
        with pytest.raises(InputError, match=r"sizes = \[.*\]: give numbers of rows of at least 1, or leave it out"):
            Prefixes(Features(), Mean(), sizes=sizes)
    with pytest.raises(RecipeError, match=r'Gradients with scope = "all" mixes the classes: use scope = "class"'):
        Prefixes(Gradients(scope="all"), Cosine())
