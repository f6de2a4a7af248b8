"""A step from a sketch of all images is the step from a mini-batch of all images, under the same network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from latentdc.condense import Optim, condense
from latentdc.data.augment import NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES, Cosine, Mean
from latentdc.errors import InputError
from latentdc.initialise import initialise
from latentdc.networks import FixedPool, Pool
from latentdc.objectives import Match
from latentdc.portable.pixels import PixelsDecoder
from latentdc.recipe import build, load_recipe, make_source, plain_source
from latentdc.representations import Features, Gradients, HeadVariance, Representation
from latentdc.sketch import Sketch, sketch
from latentdc.source import Look, Minibatches, Source
from latentdc.types import Batch, Net

CASES: list[tuple[Representation, str]] = [
    (Gradients(), "cosine"),
    (Gradients(scope="all", project=3), "cosine"),
    (Gradients(layers="convolutions"), "norm"),
    (HeadVariance(), "mean"),
    (Features(), "mean"),
    (Features(), "energy"),
    (Features(layer="all"), "sliced"),
]


def _pool(store: ClassStore) -> FixedPool:
    return FixedPool("convnet", store.spec, 0, 1, width=4)


def _sketch(store: ClassStore, see: Representation, by: str) -> Sketch:
    part = DISCREPANCIES[by]()
    num = None if part.sketchable else len(store)
    return sketch(store, _pool(store), NoAugment(), see, part, landmarks=num, batch_size=8, progress=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{type(case[0]).__name__}-{case[1]}")
def test_pixels_are_pulled_back_alike(case: tuple[Representation, str], tiny_store: ClassStore) -> None:
    see, by = case
    spec, match = tiny_store.spec, Match(see, DISCREPANCIES[by]())
    decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)

    def moved(source: Source) -> Tensor:
        bank: Any = initialise("real", decoder, (2, 2, 2), seed=0, store=tiny_store)
        begun = bank.z["x"].detach().clone()
        optim = Optim("sgd", lr=1e4, momentum=0)  # long: a short one is lost in the rounding of where it starts
        made: Any = condense(decoder, bank, match, source, steps=1, optim=optim, seed=0, progress=False)
        return made.z["x"].detach() - begun  # type: ignore[no-any-return]

    everything = Minibatches(tiny_store, UniformSampler(tiny_store, 12), _pool(tiny_store), NoAugment(), seed=0)
    expected = moved(everything)
    assert float(expected.abs().max()) > 0
    atol = 1e-3 * float(expected.abs().max())
    torch.testing.assert_close(moved(_sketch(tiny_store, see, by)), expected, rtol=1e-3, atol=atol)


def test_the_mean_of_the_classes_does_not_weigh_them_by_their_images(tiny_store: ClassStore) -> None:
    few = tiny_store.subset([0, *range(12, 36)])
    see, syn = Gradients(scope="all"), tiny_store.batch([1, 13, 14, 30])
    source, match = _sketch(few, see, "cosine"), Match(see, Cosine())
    view, everything = source.view(0), few.batch(torch.arange(len(few)))
    shown = see(view.net, everything, differentiable=False)
    ours = see(view.net, syn, differentiable=False)
    zero = torch.zeros(1, dtype=torch.int64)
    expected = sum(float(Cosine()(Cosine().summarise(a, zero, 3), b, zero)) for a, b in zip(shown, ours, strict=True))
    assert float(match(view, syn)) == pytest.approx(expected, rel=1e-4)
    some = view.real([Look(see, Cosine())], [1, 2])[0][0].mean[0]
    classes = Gradients()(view.net, everything, differentiable=False)[0]
    torch.testing.assert_close(some.float(), classes[1:].mean(0), rtol=1e-4, atol=1e-6)


def test_a_class_without_images_is_named(tiny_store: ClassStore) -> None:
    for see in (Gradients(), Gradients(scope="all"), HeadVariance()):
        view = _sketch(tiny_store.subset(range(20)), see, "mean").view(0)
        with pytest.raises(InputError, match=r"classes \[2\] have synthetic rows but no real ones"):
            Match(see, Mean())(view, tiny_store.batch([0, 30]))


@dataclass(frozen=True)
class Longest:
    """Of somebody's own: what no mean over images gives."""

    kind: ClassVar[str] = "parameters"

    def __call__(self, net: Net, batch: Batch, *, differentiable: bool) -> tuple[Tensor, ...]:
        """Nothing that matters here."""
        raise AssertionError("refused before it is asked")


def test_what_does_not_say_how_it_adds_up_is_refused(tiny_store: ClassStore) -> None:
    with pytest.raises(
        InputError, match=r'"longest" shows a row for each class .* \(summed and of_means\).*minibatches'
    ):
        _sketch(tiny_store, Longest(), "mean")


def test_rows_of_a_sketch_of_gradients_are_looked_at_one_by_one(tiny_store: ClassStore) -> None:
    small = {"source.width": 4, "source.num_pairs": 1, "source.num_per_class": 5, "decoder": "pixels"}
    for changes, kind in (({"objective.see": "gradients"}, Minibatches), ({}, Sketch)):
        parts = build(load_recipe("dm-gan", overrides={**small, **changes}), tiny_store.spec)
        source = make_source(parts, tiny_store, progress=False)
        assert isinstance(source, Sketch)
        assert isinstance(plain_source(parts, tiny_store, source), kind)


def test_no_network_of_a_sketch_depends_on_the_set(tiny_store: ClassStore) -> None:
    pool = Pool("convnet", tiny_store.spec, 0, width=4)
    with pytest.raises(InputError, match="a sketch needs a fixed pool of networks"):
        sketch(tiny_store, pool, NoAugment(), Gradients(), Cosine(), progress=False)  # type: ignore[arg-type]
