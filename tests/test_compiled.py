"""A compiled network shows what is asked of it, and what says that it needs little is not mistaken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Cosine, Mean
from latentdc.errors import InputError
from latentdc.networks import FreshPool, build, compiled
from latentdc.networks.compiled import Observed, missing_compiler, observer
from latentdc.objectives import PENALTIES, Match, Objective, Penalised, Prefixes
from latentdc.representations import REPRESENTATIONS, Features, Representation, needs_of
from latentdc.source import Minibatches, Started, StartedView
from latentdc.types import EMBEDDING, EVERYTHING, FEATURES, Batch, DataSpec, Net, Part

SPEC = DataSpec((1, 16, 16), ("a", "b"), (0.5,), (0.25,))
OWNER = torch.tensor([0, 1, 0, 1, 1, 0])
SEES: dict[str, Representation] = {
    **{name: part() for name, part in REPRESENTATIONS.items()},
    **{f"features-{layer}": Features(layer=layer) for layer in ("all", "maps")},
}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled is run as it is: what it leaves out is left out all the same."""
    monkeypatch.setattr(compiled, "compiled", lambda function: function)
    monkeypatch.setattr(compiled, "_compiled_scores", lambda: compiled._scores)
    monkeypatch.setattr(compiled, "require_compiler", lambda device: None)


def _batch() -> Batch:
    x = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.eye(2)[OWNER], OWNER, row=torch.arange(6))


def _net(arch: str = "convnet") -> Net:
    return build(arch, SPEC, seed=0, width=4).eval().requires_grad_(False)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("parts", "depths", "maps"), [(EMBEDDING, 1, 0), (FEATURES, 3, 0), (EVERYTHING, 3, 3)])
def test_what_is_not_asked_for_is_left_out(parts: frozenset[Part], depths: int, maps: int) -> None:
    net, x = _net(), _batch().x
    seen, whole = observer(compile=True, parts=parts)(net, x), net.observe(x)
    assert (len(seen.features), len(seen.maps)) == (depths, maps)
    assert torch.equal(seen.last, whole.last)
    assert torch.equal(seen.logits, whole.logits)
    assert len(observer(parts=EMBEDDING)(net, x).features) == 3  # uncompiled it costs nothing


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", SEES)
def test_a_representation_looks_at_no_more_than_it_says(name: str) -> None:
    see, net = SEES[name], _net()
    spare = Observed(net, observer(compile=True, parts=needs_of(see)))
    for differentiable in (False, True):
        batch = _batch()
        batch.x.requires_grad_(differentiable)
        shown, expected = (see(each, batch, differentiable=differentiable) for each in (spare, net))
        assert len(shown) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(shown, expected, strict=True))


def _objectives() -> dict[str, Callable[[], Objective]]:
    penalties = {name: lambda part=part: part() for name, part in PENALTIES.items()}
    terms: dict[str, Callable[[], Objective]] = {
        "prefixes": lambda: Prefixes(Features(layer="all"), Mean()),
        "gradients": lambda: Match(SEES["gradients"], Cosine()),
        "pairwise-all": lambda: PENALTIES["pairwise"](layer="all"),
        "sum": lambda: Penalised(Match(SEES["attention"], Mean()), [PENALTIES["cross-entropy"]()]),
    }
    return penalties | terms


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", _objectives())
def test_an_objective_looks_at_no_more_than_it_says(name: str, tiny_store: ClassStore) -> None:
    objective = _objectives()[name]()

    def view() -> StartedView:
        pool = FreshPool("convnet", tiny_store.spec, 0, width=4)
        source = Minibatches(tiny_store, UniformSampler(tiny_store, 5), pool, DSA(), seed=0)
        return Started(source, tiny_store.batch([0, 20, 1, 30]).x).view(2)

    whole, spare = view(), view()
    spare.net = Observed(spare.net, observer(compile=True, parts=objective.needs))
    batch = tiny_store.batch([0, 20, 1, 30])._replace(row=torch.arange(4))
    found, expected = (objective(each, batch._replace(x=(batch.x + 0.1).requires_grad_())) for each in (spare, whole))
    assert torch.equal(found, expected)


def test_a_sum_needs_what_its_parts_need() -> None:
    embedding = Match(Features(), Mean())
    assert embedding.needs == EMBEDDING
    assert Penalised(embedding, [PENALTIES["pairwise"](layer="all")]).needs == {"features"}
    assert Penalised(embedding, [Match(SEES["attention"], Mean())]).needs == {"maps"}
    assert Objective.needs == FEATURES
    assert all(part().needs == EMBEDDING for part in PENALTIES.values())


class Silent:
    """A representation that does not say what it needs."""

    kind = "points"

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        return net.observe(batch.x).features


class Misspelt(Silent):
    needs = frozenset({"feature"})


def test_what_says_nothing_needs_the_features() -> None:
    assert needs_of(Silent()) == FEATURES
    assert Match(Silent(), Mean()).needs == FEATURES
    with pytest.raises(InputError, match=r"Misspelt\.needs = \['feature'\]: choose among \['features', 'maps'\]"):
        needs_of(Misspelt())


@pytest.mark.slow
@pytest.mark.skipif(missing_compiler() is not None, reason=f"needs {missing_compiler()}")
@pytest.mark.parametrize("parts", [EMBEDDING, FEATURES, EVERYTHING])
def test_a_compiled_network_shows_the_same(parts: frozenset[Part]) -> None:
    net, x = _net(), _batch().x.requires_grad_()
    seen, whole = observer(compile=True, parts=parts)(net, x), net.observe(x)
    found, expected = ((each.last.square().sum() + each.logits.sum()) for each in (seen, whole))
    for part in parts:
        torch.testing.assert_close(getattr(seen, part), getattr(whole, part), rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(each, x)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
