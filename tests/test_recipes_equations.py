"""Shipped recipes against their papers' whole objective, with the papers' own constants: terms and weights together."""

from __future__ import annotations

import pytest
from reference.classify_loop import cross_entropy_loop
from reference.mean_loop import mean_loop

from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.networks import FreshPool
from latentdc.recipe import build, load_recipe
from latentdc.source import Minibatches

ACCURACY = 0.75
IDM_WEIGHT_PER_CENT = 0.5
"""IDM's λ multiplies an accuracy in per cent."""


@pytest.mark.parametrize("name", ["dm", "dance", "idm"])
def test_means_and_cross_entropy_are_weighed_as_published(name: str, tiny_store: ClassStore) -> None:
    built = build(load_recipe(name, overrides={"source.width": 4}), tiny_store.spec)
    pool = FreshPool("convnet", tiny_store.spec, 0, width=4)
    view = Minibatches(tiny_store, UniformSampler(tiny_store, 5), pool, DSA(), seed=0).view(1)
    view.net.accuracy = ACCURACY  # type: ignore[attr-defined]
    syn = tiny_store.batch([0, 20, 1, 30, 31, 21, 2])
    real, seen = view.augment(view.batch(range(tiny_store.spec.num_classes))), view.augment(syn)
    theirs, mine = view.net.observe(real.x), view.net.observe(seen.x)
    expected = mean_loop(theirs.features[-1].double(), real.owner, mine.features[-1].double(), syn.owner)
    shares = {"dm": 0.0, "dance": 1.0, "idm": IDM_WEIGHT_PER_CENT * 100 * ACCURACY}
    expected += shares[name] * cross_entropy_loop(mine.logits, syn.owner)
    assert float(built.objective(view, syn).detach()) == pytest.approx(expected, rel=1e-4)
