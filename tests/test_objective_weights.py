"""What counts how much: weights of depths, of synthetic and of real images, and of the rows that are given labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentdc.data.store import ClassStore
from latentdc.discrepancies import Energy, Mean, Summary
from latentdc.labels import LearnedLabels, Lesson, TeacherLabels, begun, relabelled, teacher
from latentdc.networks.train import TrainSpec
from latentdc.objectives import (
    CentreClassify,
    CrossEntropy,
    FarFromSelf,
    IntraInter,
    Match,
    NearReal,
    Penalised,
    Prefixes,
)
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.representations import Features
from latentdc.source import Look
from latentdc.types import Batch, Net, Observation

POINTS = torch.tensor([[3.0, 1.0, 0.5], [1.0, 2.0, 0.2], [2.0, 2.0, 3.0], [0.5, 1.0, 4.0], [1.0, 0.3, 2.0]])
OWNER = torch.tensor([0, 0, 0, 2, 2])
HEAVY = torch.tensor([1.0, 3.0, 2.0, 1.0, 4.0])
"""Five images of three numbers each, of two of three classes, and a weight for each."""


class Shows:
    """A network that shows the numbers of an image at three depths, and takes them for its class scores."""

    def observe(self, x: Tensor) -> Observation:
        flat = x.flatten(1)
        return Observation(flat, (flat[:, :1], 2 * flat[:, 1:], flat))


class Beside:
    """A view of a few real images, which nothing is drawn for."""

    step = 0

    def __init__(self, real: Batch) -> None:
        self.net: Net = Shows()
        self._real = real

    def rng(self, purpose: str, cls: int = 0) -> torch.Generator:
        raise AssertionError(f"nothing is drawn here: {purpose}, {cls}")

    def augment(self, batch: Batch) -> Batch:
        return batch

    def batch(self, classes: Sequence[int]) -> Batch:
        del classes
        return self._real

    def real(self, looks: Sequence[Look], classes: Sequence[int]) -> tuple[tuple[Summary, ...], ...]:
        real = self.batch(classes)
        seen = [(by, see(self.net, real, differentiable=False)) for see, by in looks]
        return tuple(tuple(by.summarise(layer, real.owner, 3, real.w) for layer in layers) for by, layers in seen)


def _batch(points: Tensor, owner: Tensor, w: Tensor | None = None) -> Batch:
    y = functional.one_hot(owner, 3).to(points)
    return Batch(points.view(-1, 1, 1, 3), y, owner, w, torch.arange(len(owner)))


def _class(cls: int) -> tuple[Tensor, Tensor]:
    """Points of a class at unit length, and their shares of its weight."""
    mine = OWNER.eq(cls)
    return POINTS[mine] / POINTS[mine].norm(dim=1, keepdim=True), HEAVY[mine] / HEAVY[mine].sum()


SYN = _batch(POINTS, OWNER, HEAVY)
REAL = _batch(
    torch.tensor([[1.0, 1.0, 2.0], [2.0, 0.5, 1.0], [3.0, 1.0, 1.0], [1.0, 2.0, 3.0]]),
    torch.tensor([0, 2, 2, 2]),
    torch.tensor([2.0, 1.0, 4.0, 3.0]),
)
"""Of one class one image and of the other three, so that the first is filled up."""
VIEW = Beside(REAL)


@pytest.mark.parametrize("by", [Mean(), Energy()], ids=["sums", "points"])
@pytest.mark.parametrize("kind", [Match, Prefixes])
def test_each_depth_counts_by_its_own_weight(kind: type[Match], by: Mean | Energy) -> None:
    see, (real,) = Features("all"), VIEW.real([Look(Features("all"), by)], [0, 2])
    syn = SYN if kind is Match else SYN.at(torch.tensor([1, 4]))  # A lone row has no smaller prefix.
    gaps = [
        float(by(s, p, syn.owner, syn.w)) for s, p in zip(real, see(VIEW.net, syn, differentiable=False), strict=True)
    ]
    assert len({round(gap, 4) for gap in gaps}) == 3
    apart = 0.5 * gaps[0] + 3 * gaps[1] + 0.1 * gaps[2]
    assert float(kind(see, by, (0.5, 3.0, 0.1))(VIEW, syn)) == pytest.approx(apart, rel=1e-5)
    assert float(kind(see, by, (3.0,))(VIEW, syn)) == pytest.approx(3 * sum(gaps), rel=1e-5)


def test_pairs_of_heavy_images_count_for_more() -> None:
    """Both images' weights for their nearness, an image's own for its nearest, all of a class's for its mean."""
    near, far, means = 0.0, 0.0, []
    for cls in (0, 2):
        f, w = _class(cls)
        pairs = [(i, j) for i in range(len(f)) for j in range(len(f)) if i != j]
        mass = sum(float(w[i] * w[j]) for i, j in pairs)
        near += sum(float(w[i] * w[j] * (-(f[i] - f[j]).square().sum() / 0.7).exp()) for i, j in pairs) / mass
        far += sum(float(w[i]) * max(float(f[i] @ f[j]) for k, j in pairs if k == i) for i in range(len(f)))
        means.append((w[:, None] * f).sum(0))
    near += max(0.0, 1.5 - float((means[0] - means[1]).norm()))
    assert float(IntraInter(2.0, temperature=0.7, margin=1.5)(VIEW, SYN)) == pytest.approx(2 * near, rel=1e-5)
    assert float(FarFromSelf(2.0)(VIEW, SYN)) == pytest.approx(2 * far, rel=1e-5)


def test_real_images_count_by_their_weights_and_what_fills_a_class_up_by_none() -> None:
    centres = [(HEAVY[mine] / HEAVY[mine].sum()) @ POINTS[mine] for mine in (OWNER.eq(0), OWNER.eq(2))]
    told, near = 0.0, 0.0
    for place, cls in enumerate((0, 2)):
        mine = REAL.owner == cls
        x, w = REAL.x[mine].flatten(1), REAL.w[mine]  # type: ignore[index]
        losses = functional.cross_entropy(x @ torch.stack(centres).T, torch.full((len(x),), place), reduction="none")
        told += float((w * losses).sum() / w.sum())
        f, heavy = _class(cls)
        least = (f @ (x / x.norm(dim=1, keepdim=True)).T).amin(1)
        assert float(least.min()) > 0, "nothing real would be as far as the zeros"
        near += float((heavy * (1 - least)).sum())
    assert float(CentreClassify(2.0)(VIEW, SYN)) == pytest.approx(2 * told, rel=1e-5)
    assert float(NearReal(2.0)(VIEW, SYN)) == pytest.approx(2 * near, rel=1e-5)


def test_misclassified_images_count_by_weight_and_are_those_not_taken_for_their_class() -> None:
    """Whatever a learned label says: the second image's is by now for the class that the network takes it for."""
    y = SYN.y.clone()
    y[1] = torch.tensor([0.2, 0.7, 0.1])
    losses = -(y * POINTS.log_softmax(1)).sum(1)
    wrong = [1, 2]  # Of the first class; those of the last are all right.
    assert (POINTS.argmax(1) != OWNER).nonzero().flatten().tolist() == wrong
    expected = float((HEAVY[wrong] * losses[wrong]).sum() / HEAVY[wrong].sum())
    shown = CrossEntropy(2.0, misclassified=True)(VIEW, SYN._replace(y=y))
    assert float(shown) == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize("orders", [True, False])
def test_whoever_learns_an_order_keeps_it_beside_penalties(orders: bool) -> None:
    match = (Prefixes if orders else Match)(Features(), Mean())
    assert Penalised(match, [CrossEntropy()]).orders is orders
    assert Penalised(Match(Features(), Mean()), [match]).orders is orders


class Says:
    """Labels that say the same of every image, and keep what they are asked of."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def of(self, images: Callable[[], Tensor], lesson: Lesson) -> Tensor:
        del lesson
        self.asked.append(images())
        return torch.tensor([[0.5, 0.3, 0.2]]).expand(len(self.asked[0]), 3)


def _weighed(store: ClassStore) -> tuple[PixelsDecoder, LatentBank]:
    """Rows far outside the range of images, with weights."""
    decoder = PixelsDecoder(store.spec.image_shape, store.spec.mean, store.spec.std)
    latents = {name: 9 * z for name, z in decoder.prior(torch.zeros(3), torch.Generator().manual_seed(0)).items()}
    return decoder, LatentBank.of(latents, [2, 0, 1], w=torch.tensor([1.0, 3.0, 2.0]))


def test_rows_keep_their_weights_when_they_are_given_labels(tiny_store: ClassStore) -> None:
    (decoder, bank), lesson, says = _weighed(tiny_store), Lesson(tiny_store, 0), Says()
    for told in (relabelled(says, bank, decoder, None, lesson), begun(LearnedLabels(), bank, decoder, None, None)):
        assert told.w is not None
        assert told.w.tolist() == [1, 3, 2]
        assert told.counts == (2, 0, 1)
        assert torch.equal(told.latents()["x"], bank.latents()["x"])
    (asked,) = says.asked
    assert torch.equal(asked, decoder(bank.latents(), bank.owner).clamp(0, 1)), "as the images will be exported"
    assert float(asked.detach().max()) == 1


def test_a_teacher_learns_from_as_many_images_as_asked(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lessons: list[tuple[Tensor, Tensor, TrainSpec]] = []
    monkeypatch.setattr(teacher, "train_student", lambda _net, x, y, spec, **_: lessons.append((x, y, spec)))
    images = tiny_store.batch([0, 14]).x
    for num in (7, None):
        TeacherLabels("mlp", 4, epochs=6, num_images=num).of(lambda: images, Lesson(tiny_store, 0))
    (few, named, spec), (every, _, _) = lessons
    assert (len(few), len(every)) == (7, len(tiny_store))
    assert (spec.epochs, spec.milestones) == (6, (3,)), "the rate falls half-way"
    places = [(tiny_store.images == x).flatten(1).all(1).nonzero().item() for x in few]
    assert len(set(places)) == 7
    assert torch.equal(tiny_store.labels[places], named)
    assert len(set(named.tolist())) > 1, "drawn from all of them"
