"""Each penalty is what its equation says, value and gradient; what it cannot be run with is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.classify_loop import centre_classify_loop, cross_entropy_loop
from reference.spread_loop import far_from_self_loop, intra_inter_loop, near_real_loop
from torch import Tensor

from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Cosine, Mean
from latentdc.errors import InputError, RecipeError
from latentdc.networks import FixedPool, FreshPool
from latentdc.networks.compiled import Observed, observer
from latentdc.objectives import (
    PENALTIES,
    CentreClassify,
    CrossEntropy,
    FarFromSelf,
    IntraInter,
    Match,
    NearReal,
    Objective,
    Penalised,
)
from latentdc.recipe import build, parse_recipe
from latentdc.representations import Features, Gradients, Logits
from latentdc.sketch import sketch
from latentdc.source import Look, Minibatches, MinibatchView
from latentdc.types import Batch

LOOPS: dict[str, tuple[Objective, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]]] = {
    "centre-classify": (CentreClassify(weight=1.0), centre_classify_loop),
    "intra-inter": (
        IntraInter(weight=1.0, temperature=0.7, margin=0.9),
        lambda _real, _owner, syn, owner: intra_inter_loop(syn, owner, 0.7, 0.9),
    ),
    "near-real": (NearReal(), near_real_loop),
    "far-from-self": (FarFromSelf(), lambda _real, _owner, syn, owner: far_from_self_loop(syn, owner)),
}


@pytest.fixture
def view(tiny_store: ClassStore) -> MinibatchView:
    pool = FreshPool("mlp", tiny_store.spec, 0, width=8)
    return Minibatches(tiny_store, UniformSampler(tiny_store, 5), pool, DSA(), seed=0).view(2)


def _syn(store: ClassStore, rows: tuple[int, ...] = (0, 20, 1, 30, 31, 21, 2)) -> Batch:
    batch = store.batch(list(rows))
    return batch._replace(x=(batch.x + 0.1).requires_grad_())


@pytest.mark.parametrize("rows", [(0, 20, 1, 30, 31, 21, 2), (0, 20, 1, 30)], ids=["several", "lone"])
@pytest.mark.parametrize("name", LOOPS)
def test_value_and_gradient_equal_the_loop(
    name: str, rows: tuple[int, ...], view: MinibatchView, tiny_store: ClassStore
) -> None:
    (penalty, loop), syn, real = LOOPS[name], _syn(tiny_store, rows), view.batch([0, 1, 2])
    theirs, ours = (view.net.observe(view.augment(each).x).last for each in (real, syn))
    value, expected = penalty(view, syn), loop(theirs.detach(), real.owner, ours, syn.owner)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    mine, plain = (torch.autograd.grad(each, syn.x)[0] for each in (value, expected))
    torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(PENALTIES[name](weight=0.3)(view, syn), PENALTIES[name](weight=0.1)(view, syn) * 3)


@pytest.mark.parametrize("name", ["cross-entropy", "centre-classify", "near-real"])
def test_weight_two_is_the_image_twice(name: str, view: MinibatchView, tiny_store: ClassStore) -> None:
    syn, twice = _syn(tiny_store), torch.tensor([0, 1, 2, 3, 3, 4, 5, 6])
    double = Batch(syn.x[twice], syn.y[twice], syn.owner[twice])
    heavy = syn._replace(w=torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(PENALTIES[name]()(view, heavy), PENALTIES[name]()(view, double))


def test_pairs_are_weighted_and_the_weightless_is_not_there(view: MinibatchView, tiny_store: ClassStore) -> None:
    syn, kept = _syn(tiny_store), torch.tensor([0, 1, 2, 3, 4, 5])  # All but the third image of the first class.
    without = Batch(syn.x[kept], syn.y[kept], syn.owner[kept])
    for penalty in (IntraInter(), FarFromSelf()):
        weightless = syn._replace(w=torch.ones(7).index_fill_(0, torch.tensor([6]), 0.0))
        torch.testing.assert_close(penalty(view, weightless), penalty(view, without))
        assert not torch.allclose(penalty(view, syn), penalty(view, without))


def test_classes_in_one_place_are_no_nan(view: MinibatchView, tiny_store: ClassStore) -> None:
    batch = tiny_store.batch([0, 12])
    x = batch.x[[0, 0]].requires_grad_()
    view.augment = lambda given: given  # type: ignore[method-assign]
    (gradient,) = torch.autograd.grad(IntraInter()(view, batch._replace(x=x)), x)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("misclassified", [False, True])
def test_cross_entropy_equals_its_loop(misclassified: bool, view: MinibatchView, tiny_store: ClassStore) -> None:
    syn = _syn(tiny_store)
    logits = view.net.observe(view.augment(syn).x).logits
    wrong = logits.argmax(1) != syn.owner
    assert 0 < int(wrong.sum()) < len(wrong)
    value = CrossEntropy(weight=0.5, misclassified=misclassified)(view, syn)
    expected = 0.5 * cross_entropy_loop(logits, syn.owner, misclassified=misclassified)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(value, syn.x)
    moved = gradient.flatten(1).abs().sum(1) > 0
    assert torch.equal(moved, wrong if misclassified else torch.ones_like(wrong))


def test_a_class_without_a_misclassified_image_has_no_gradient_at_any_weight(
    view: MinibatchView, tiny_store: ClassStore
) -> None:
    syn = _syn(tiny_store)
    wrong = view.net.observe(view.augment(syn).x).logits.argmax(1) != syn.owner
    only = (~wrong).nonzero().flatten()[:1]  # an image that is right, alone in its class
    assert len(only) == 1
    alone = Batch(syn.x.detach()[only].requires_grad_(), syn.y[only], syn.owner[only])
    value = CrossEntropy(weight=1e4, misclassified=True)(view, alone)
    assert float(value.detach()) == 0
    (gradient,) = torch.autograd.grad(value, alone.x)
    assert bool((gradient == 0).all())


def test_cross_entropy_by_the_networks_accuracy(view: MinibatchView, tiny_store: ClassStore) -> None:
    syn, plain = _syn(tiny_store), CrossEntropy(weight=2.0)
    with pytest.raises(InputError, match=r"does not know: use a queue of networks, or leave by_accuracy"):
        CrossEntropy(by_accuracy=True)(view, syn)
    view.net.accuracy = 0.25  # type: ignore[attr-defined]
    expected = 0.25 * plain(view, syn)
    torch.testing.assert_close(CrossEntropy(weight=2.0, by_accuracy=True)(view, syn), expected)
    torch.testing.assert_close(Penalised(CrossEntropy(weight=2.0, by_accuracy=True), [])(view, syn), expected)
    view.net = Observed(view.net, observer())
    torch.testing.assert_close(CrossEntropy(weight=2.0, by_accuracy=True)(view, syn), expected)
    torch.testing.assert_close(Penalised(CrossEntropy(weight=2.0, by_accuracy=True), [])(view, syn), expected)


def test_classes_without_real_images_are_refused(view: MinibatchView, tiny_store: ClassStore) -> None:
    syn = _syn(tiny_store)
    for penalty in (CentreClassify(), NearReal()):
        (real,) = view.real(penalty.looks, [0, 1])
        with pytest.raises(InputError, match=r"classes \[2\] have synthetic rows but no real ones"):
            penalty.match.by(real[0], torch.ones(len(syn.x), 8), syn.owner)
        sums = Mean().summarise(torch.ones(36, 8), tiny_store.batch(torch.arange(36)).owner, 3)
        with pytest.raises(InputError, match="needs the real points themselves and was given sums"):
            penalty.match.by(sums, torch.ones(len(syn.x), 8), syn.owner)


def test_a_sketch_holds_no_images(tiny_store: ClassStore) -> None:
    pool = FixedPool("mlp", tiny_store.spec, 0, 1, width=8)
    held = sketch(tiny_store, pool, DSA(), Features(), Mean(), progress=False)
    for penalty in (CentreClassify(), NearReal()):
        assert penalty.needs_images
        with pytest.raises(InputError, match=r"needs the real points themselves, which a sketch does not hold"):
            penalty(held.view(0), _syn(tiny_store))
    assert Penalised(Match(Features(), Mean()), [NearReal()]).needs_images
    assert not Penalised(Match(Features(), Mean()), [FarFromSelf()]).needs_images
    table = {"images_per_class": 1, "source": {"kind": "sketch"}, "objective": {"penalties": ["near-real"]}}
    with pytest.raises(RecipeError, match=r'= "near-real": real images are looked at one by one, and a sketch holds n'):
        build(parse_recipe(table), tiny_store.spec)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(weight=0.0), r"weight = 0\.0: give a positive, finite number, or leave the penalty out"),
        (lambda: NearReal(weight=math.inf), r"weight = inf: give a positive"),
        (lambda: IntraInter(temperature=0.0), r"temperature = 0\.0: give a positive, finite number"),
        (lambda: IntraInter(margin=-1.0), r"margin = -1\.0: give a positive, finite number"),
    ],
)
def test_wrong_values_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def _met(store: ClassStore) -> tuple[Minibatches, Batch]:
    """Mini-batches of a store, and six of its images to learn."""
    pool = FreshPool("mlp", store.spec, 0, width=8)
    batch = store.batch([0, 5, 12, 14, 24, 30])
    source = Minibatches(store, UniformSampler(store, 4), pool, DSA(), seed=0)
    return source, batch._replace(x=batch.x.clone().requires_grad_())


def test_all_terms_share_one_look_at_each_set(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    source, syn = _met(tiny_store)
    parts = [Match(Features(), Mean()), Match(Features("all"), Mean()), CrossEntropy(0.5), IntraInter()]
    parts += [CentreClassify(), NearReal()]
    apart = torch.stack([part(source.view(0), syn) for part in parts]).sum()
    (alone,) = torch.autograd.grad(apart, syn.x)
    view, seen = source.view(0), []
    net, look = view.net, view.net.observe
    monkeypatch.setattr(net, "observe", lambda x: (seen.append(x.requires_grad), look(x))[1])
    whole = Penalised(parts[0], parts[1:])
    total = whole(view, syn)
    (together,) = torch.autograd.grad(total, syn.x)
    assert seen == [True, False]
    torch.testing.assert_close(total, apart)
    torch.testing.assert_close(together, alone)
    torch.autograd.grad(whole(view, syn), syn.x)  # nothing of a loss is kept for the next one


def test_what_was_not_announced_is_looked_at_by_itself(tiny_store: ClassStore) -> None:
    """And a look with gradients at the real side keeps them to itself."""

    class Salient:
        kind = "points"

        def __call__(self, net: Any, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                x = batch.x if differentiable else batch.x.detach().requires_grad_()
                found = torch.autograd.grad(net.observe(x).logits.sum(), x, create_graph=differentiable)
            return (found[0].flatten(1),)

    class Unannounced(Match):
        looks = ()

        def forward(self, view: Any, syn: Batch) -> Tensor:
            ((real,),) = view.real([Look(self.see, self.by)], [0, 1, 2])
            return self.measure((real,), self.see(view.net, view.augment(syn), differentiable=True), syn)

    source, syn = _met(tiny_store)
    parts = [Match(Features(), Mean()), Match(Salient(), Mean()), Unannounced(Logits(), Mean()), CentreClassify()]
    apart = torch.stack([part(source.view(0), syn) for part in parts]).sum()
    for order in (parts, parts[::-1]):
        torch.testing.assert_close(Penalised(order[0], order[1:])(source.view(0), syn), apart)


def test_terms_may_look_at_gradients_and_at_other_labels(tiny_store: ClassStore) -> None:
    class Apart(Objective):
        """An own term: gradients under a name of its own, and the images under other labels."""

        def __init__(self) -> None:
            super().__init__()
            self.look = Gradients()

        def forward(self, view: Any, syn: Batch) -> Tensor:
            shown = view.augment(syn._replace(y=syn.y.roll(1, 1)))
            return sum(layer.square().sum() for layer in self.look(view.net, shown, differentiable=True))

    source, syn = _met(tiny_store)
    parts = [Match(Gradients(), Cosine()), CrossEntropy(0.5), Apart()]
    apart = torch.stack([part(source.view(0), syn) for part in parts]).sum()
    torch.testing.assert_close(Penalised(parts[0], parts[1:])(source.view(0), syn), apart)
