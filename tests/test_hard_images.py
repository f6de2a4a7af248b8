"""Hard but right images: which they are, and how many of a draw."""

from __future__ import annotations

import pytest
import torch

from latentdc.data.store import ClassStore
from latentdc.fit.hard import LEAST, HardSampler
from latentdc.networks import build
from latentdc.networks.base import Network
from latentdc.seeding import stream


@pytest.fixture
def classifier(tiny_store: ClassStore) -> Network:
    return build("mlp", tiny_store.spec, seed=3, width=16).eval()


def sure(classifier: Network, store: ClassStore) -> torch.Tensor:
    with torch.no_grad():
        p = classifier(store.images.float() / 255).softmax(1)
    return p[torch.arange(len(store)), store.labels]


def test_a_share_of_a_draw_is_hard_and_none_is_disbelieved(tiny_store: ClassStore, classifier: Network) -> None:
    """Scores of a linear head scaled up: some images are believed and some are not."""
    with torch.no_grad():
        classifier.classifier.weight.mul_(20)
    p = sure(classifier, tiny_store)
    sampler = HardSampler(tiny_store, 4, classifier, share=0.5, hardest=0.5)
    for cls in range(3):
        mine = p[tiny_store.labels == cls]
        believed = mine[mine > LEAST].sort().values
        drawn = sampler([cls], None, lambda c: stream(1, "t", c))
        seen = sorted(sure_of(classifier, drawn.x, cls))
        assert drawn.owner.tolist() == [cls] * len(drawn.x)
        if len(believed) < 4:
            assert len(sampler._believed[cls]) == len(mine)
            continue
        assert min(seen) > LEAST, "what contradicts its label is left out"
        bound = believed[max(1, round(0.5 * len(believed))) - 1]
        assert sum(each <= float(bound) + 1e-6 for each in seen) >= min(2, round(0.5 * len(believed)))


def sure_of(classifier: Network, x: torch.Tensor, cls: int) -> list[float]:
    with torch.no_grad():
        return [float(each) for each in classifier(x).softmax(1)[:, cls]]


def test_some_class_is_believed_and_some_is_not(tiny_store: ClassStore, classifier: Network) -> None:
    """Or the test above looks at nothing."""
    with torch.no_grad():
        classifier.classifier.weight.mul_(20)
    p = sure(classifier, tiny_store)
    believed = [(p[tiny_store.labels == cls] > LEAST).sum().item() for cls in range(3)]
    assert max(believed) >= 4
    assert min(believed) < 12


def test_a_class_that_the_classifier_never_believes_stays_whole(tiny_store: ClassStore, classifier: Network) -> None:
    with torch.no_grad():
        classifier.classifier.bias[:] = torch.tensor([50.0, 0.0, 0.0])
    sampler = HardSampler(tiny_store, 4, classifier, share=0.0)
    draws = torch.cat([sampler([2], None, lambda c, n=n: stream(n, "t", c)).x for n in range(40)])
    assert len(draws.unique(dim=0)) == tiny_store.count(2)


def test_draws_depend_on_their_class_alone(tiny_store: ClassStore, classifier: Network) -> None:
    sampler = HardSampler(tiny_store, 4, classifier)
    both, one = (sampler(classes, None, lambda c: stream(2, "t", c)) for classes in ([0, 2], [2]))
    assert torch.equal(both.x[both.owner == 2], one.x)
