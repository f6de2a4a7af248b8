"""What else ``Gradients`` shows: convolutions alone, all weights as one vector, all classes as one gradient."""

from __future__ import annotations

import pytest
import torch
from reference.joint_gradient_loop import difference_loop, joint_gradient_loop

from latentdc.data.augment import NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Cosine, Norm
from latentdc.errors import InputError
from latentdc.networks import FreshPool, Network
from latentdc.objectives import Match
from latentdc.representations import Gradients, rows_of
from latentdc.source import Minibatches, MinibatchView
from latentdc.types import Batch


def _view(store: ClassStore, arch: str = "convnet") -> MinibatchView:
    pool = FreshPool(arch, store.spec, 0, width=4)
    return Minibatches(store, UniformSampler(store, 5), pool, NoAugment(), seed=0).view(3)


def _syn(store: ClassStore, rows: tuple[int, ...] = (0, 20, 1, 30, 31, 21)) -> Batch:
    batch = store.batch(list(rows))
    return batch._replace(x=(batch.x + 0.1).requires_grad_())


@pytest.mark.parametrize("arch", ["convnet", "mlp"])
def test_all_classes_as_one_equal_the_joint_gradient(arch: str, tiny_store: ClassStore) -> None:
    view, syn = _view(tiny_store, arch), _syn(tiny_store)
    real, net, match = view.batch([0, 1, 2]), view.net, Match(Gradients(scope="all"), Cosine())
    assert isinstance(net, Network)
    assert match.scope == "all"
    assert Match(Gradients(), Cosine()).scope == "class"
    value = match(view, syn)
    expected = joint_gradient_loop(net, real.x, real.owner, syn.x, syn.owner)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(each, syn.x)[0] for each in (value, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_all_classes_as_one_are_the_mean_of_the_classes(tiny_store: ClassStore) -> None:
    net, batch = _view(tiny_store).net, _syn(tiny_store, (0, 1, 2, 20, 30))
    batch = batch._replace(w=torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0]))
    joint, classes = (Gradients(scope=scope)(net, batch, differentiable=False) for scope in ("all", "class"))
    for one, each in zip(joint, classes, strict=True):
        torch.testing.assert_close(one, each.mean(0, keepdim=True), rtol=1e-4, atol=1e-6)
    owner, w = rows_of(Gradients(scope="all"), batch)
    assert w is not None
    assert (owner.tolist(), w.tolist()) == ([0], [8.0])
    unweighted = rows_of(Gradients(scope="all"), batch._replace(w=None))
    assert [None if part is None else part.tolist() for part in unweighted] == [[0], [5.0]]


def test_squared_differences_of_convolutions_equal_the_loop(tiny_store: ClassStore) -> None:
    view, syn = _view(tiny_store), _syn(tiny_store)
    real, net, see = view.batch([0, 1, 2]), view.net, Gradients(layers="convolutions")
    assert isinstance(net, Network)
    shown, target = see(net, syn, differentiable=True), see(net, real, differentiable=False)
    assert len(shown) == sum(parameter.ndim == 4 for parameter in net.parameters())
    value = sum((a - b).square().sum() for a, b in zip(shown, target, strict=True))
    expected = difference_loop(net, real.x, real.owner, syn.x, syn.owner)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_absolute_differences_of_convolutions_and_their_gradient_equal_the_loop(tiny_store: ClassStore) -> None:
    view, syn = _view(tiny_store), _syn(tiny_store)
    real, net = view.batch([0, 1, 2]), view.net
    assert isinstance(net, Network)
    value = Match(Gradients(layers="convolutions"), Norm(p=1))(view, syn)
    expected = difference_loop(net, real.x, real.owner, syn.x, syn.owner, power=1)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(each, syn.x)[0] for each in (value, expected))
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_whole_is_all_layers_side_by_side(tiny_store: ClassStore) -> None:
    net, batch = _view(tiny_store).net, _syn(tiny_store)
    layers = Gradients()(net, batch, differentiable=False)
    (whole,) = Gradients(rows="whole")(net, batch, differentiable=False)
    assert torch.equal(whole, torch.cat([layer.flatten(1) for layer in layers], 1)[:, None])


def test_wrong_choices_are_refused(tiny_store: ClassStore) -> None:
    with pytest.raises(InputError, match=r'see\.layers = "conv": give "all" or "convolutions"'):
        Gradients(layers="conv")
    with pytest.raises(InputError, match=r'see\.rows = "layer": give "unit" or "whole"'):
        Gradients(rows="layer")
    with pytest.raises(InputError, match=r'see\.scope = "classes": give "class" or "all"'):
        Gradients(scope="classes")
    with pytest.raises(InputError, match=r'"convolutions": MLP has no such weight tensor\. Use layers = "all"'):
        Gradients(layers="convolutions")(_view(tiny_store, "mlp").net, _syn(tiny_store), differentiable=False)
