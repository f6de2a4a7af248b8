"""Gradient matching: it is what its equations say, to the last derivative; what it cannot be run with is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.gradient_loop import gradient_loop, gradients_of

from latentdc.data.augment import NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Cosine
from latentdc.errors import InputError, RecipeError
from latentdc.initialise import initialise, order_rows
from latentdc.networks import FixedPool, FreshPool, Network
from latentdc.networks import compiled as compiled_module
from latentdc.networks.compiled import Observed, missing_compiler, observer
from latentdc.objectives import Match
from latentdc.portable.pixels import PixelsDecoder
from latentdc.recipe import build, parse_recipe
from latentdc.representations import Gradients, gradients
from latentdc.sketch import sketch
from latentdc.source import Minibatches
from latentdc.types import Batch


def _net(store: ClassStore, arch: str = "convnet") -> Network:
    return FixedPool(arch, store.spec, 0, 1, width=4).network(0)


def _source(store: ClassStore, arch: str = "convnet") -> Minibatches:
    pool = FreshPool(arch, store.spec, 0, width=4)
    return Minibatches(store, UniformSampler(store, 5), pool, NoAugment(), seed=0)


def _syn(store: ClassStore) -> Batch:
    batch = store.batch([0, 20, 1, 30, 31])
    return batch._replace(x=(batch.x + 0.1).requires_grad_())


@pytest.mark.parametrize("arch", ["convnet", "mlp"])
def test_the_match_and_its_gradient_equal_the_loop(arch: str, tiny_store: ClassStore) -> None:
    view, syn = _source(tiny_store, arch).view(3), _syn(tiny_store)
    real, net = view.batch([0, 1, 2]), view.net
    assert isinstance(net, Network)
    value = Match(Gradients(), Cosine())(view, syn)
    (ours,) = torch.autograd.grad(value, syn.x)
    expected = gradient_loop(net, real.x, real.owner, syn.x, syn.owner)
    (theirs,) = torch.autograd.grad(expected, syn.x)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_weight_tensors_of_one_axis_are_not_looked_at(tiny_store: ClassStore) -> None:
    net, batch = _net(tiny_store), tiny_store.batch([0, 1, 20])
    shown = Gradients()(net, batch, differentiable=False)
    classes = [gradients_of(net, batch.x[batch.owner == cls], cls, create_graph=False) for cls in (0, 1)]
    expected = [torch.stack(pair) for pair in zip(*classes, strict=True)]
    assert len(expected) == sum(parameter.ndim > 1 for parameter in net.parameters())
    assert [tuple(layer.shape) for layer in shown] == [tuple(each.flatten(2).shape) for each in expected]
    for layer, each in zip(shown, expected, strict=True):
        torch.testing.assert_close(layer, each.flatten(2), rtol=1e-4, atol=1e-6)


def test_the_derivative_of_the_gradient_is_the_derivative(tiny_store: ClassStore) -> None:
    net, batch = _net(tiny_store, "mlp").double(), tiny_store.batch([0, 1, 20])
    label = batch.y.double()

    def seen(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return Gradients()(net, Batch(x, label, batch.owner), differentiable=True)

    assert torch.autograd.gradcheck(seen, batch.x.double().requires_grad_())


def test_many_real_images_are_seen_in_parts(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = _net(tiny_store), tiny_store.batch(torch.arange(36))
    whole = Gradients()(net, batch, differentiable=False)
    monkeypatch.setattr(gradients, "_MOST_ROWS", 5)
    rows: list[int] = []
    net.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    parts = Gradients()(net, batch, differentiable=False)
    assert rows == [5, 5, 2] * 3
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_nothing_learns_where_the_images_do_not(tiny_store: ClassStore) -> None:
    view, syn = _source(tiny_store).view(0), _syn(tiny_store)
    assert not Match(Gradients(), Cosine())(view, syn._replace(x=syn.x.detach())).requires_grad
    with torch.no_grad():
        assert not Match(Gradients(), Cosine())(view, syn).requires_grad


def test_rows_are_ordered_by_features(tiny_store: ClassStore) -> None:
    spec = tiny_store.spec
    decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)
    bank = initialise("real", decoder, (3, 3, 3), seed=0, store=tiny_store)
    ordered = order_rows(decoder, bank, _source(tiny_store), Gradients(), Cosine())
    assert sorted(ordered.z["x"].flatten(1).sum(1).tolist()) == sorted(bank.z["x"].flatten(1).sum(1).tolist())


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler() is not None, reason=f"needs {missing_compiler()}")
def test_a_compiled_network_shows_the_same_gradients(tiny_store: ClassStore) -> None:
    net, syn = _net(tiny_store), _syn(tiny_store)
    fast = Observed(net, observer(compile=True))
    for differentiable in (False, True):
        plain, found = (Gradients()(each, syn, differentiable=differentiable) for each in (net, fast))
        assert all(layer.requires_grad == differentiable for layer in found)
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


def test_only_what_is_differentiated_once_is_compiled(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    plain = compiled_module._scores
    monkeypatch.setattr(
        compiled_module, "_compiled_scores", lambda: lambda *given: (passes.append(len(given[-1])), plain(*given))[1]
    )
    net, syn = _net(tiny_store), _syn(tiny_store)
    seen = Observed(net, observer())
    Gradients()(seen, syn, differentiable=True)
    assert not passes
    Gradients()(seen, syn, differentiable=False)
    assert sum(passes) == len(syn.x)
    Gradients()(net, syn, differentiable=False)
    assert sum(passes) == len(syn.x)
    sketch(
        tiny_store, FixedPool("mlp", tiny_store.spec, 0, 1, width=4), NoAugment(), Gradients(), Cosine(), progress=False
    )
    assert sum(passes) == len(syn.x), "classes of a batch come in parts of any size"


def test_what_is_no_module_is_refused(tiny_store: ClassStore) -> None:
    class Look:
        def observe(self, x: torch.Tensor) -> Any:
            raise AssertionError

    with pytest.raises(InputError, match="Look is no torch module: gradients of weights need one"):
        Gradients()(Look(), _syn(tiny_store), differentiable=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source.kind": "sketch", "source.landmarks": 5},
            r'sketch", objective\.see = "gradients", .*: landmarks = 5: of "gradients" by "cosine" a sketch holds sums',
        ),
        ({"source.kind": "sketch", "source.pool.kind": "trained"}, r"taken once, under networks that stay as they are"),
        ({"objective.by": "energy"}, r"Gradients shows parameters, but Energy accepts points"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(changes: dict[str, Any], message: str, tiny_store: ClassStore) -> None:
    table = {"images_per_class": 1, "objective": {"see": "gradients", "by": "cosine"}}
    with pytest.raises(RecipeError, match=message):
        build(parse_recipe(table, overrides=changes), tiny_store.spec)
