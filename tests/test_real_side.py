"""The real side of a step, read off its images: masses beside their clusters, one augmentation for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import pytest
import torch
from torch import Tensor

from latentdc.data.augment import AugmentDraw
from latentdc.data.sampling import KMeansSampler, UniformSampler
from latentdc.data.store import ClassStore, from_arrays
from latentdc.discrepancies import Mean
from latentdc.networks import FreshPool
from latentdc.representations import Features
from latentdc.source import Look, Minibatches
from latentdc.types import Batch, DataSpec, Observation

DARK, BRIGHT = 40, 200


class Pixels:
    """A network whose embedding is the image itself, and which keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def observe(self, x: Tensor) -> Observation:
        self.shown.append(x)
        return Observation(x.new_zeros(len(x), 2), (x.flatten(1),))


def _two_clusters() -> ClassStore:
    """Class 0: two bright images and then seven dark ones; class 1: two dark ones and then seven bright ones."""
    levels = torch.tensor(2 * [BRIGHT] + 7 * [DARK] + 2 * [DARK] + 7 * [BRIGHT])
    noise = torch.randint(-9, 10, (18, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    images = (levels.view(-1, 1, 1, 1) + noise).to(torch.uint8)
    return from_arrays(images, torch.arange(2).repeat_interleave(9), ["dark", "bright"], name="two clusters")


def _rng_of(seed: int) -> Callable[[int], torch.Generator]:
    return lambda cls: torch.Generator().manual_seed(100 * seed + cls)


@pytest.mark.parametrize("seed", range(4))
def test_masses_stand_beside_the_images_of_their_clusters_heaviest_first(seed: int) -> None:
    store = _two_clusters()
    sampler = KMeansSampler(store, 2)
    sampler.begin(0, _rng_of(seed), Pixels())
    batch = sampler([0, 1], None, _rng_of(seed), Pixels())
    assert batch.w is not None
    assert batch.owner.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(batch.w, torch.tensor([7 / 9, 2 / 9, 7 / 9, 2 / 9]))
    for cls in range(2):
        images = store.of_class(cls).float() / 255
        few, many = images[:2], images[2:]
        heavy, light = batch.x[batch.owner == cls]
        nearest = (many - many.mean(0)).square().flatten(1).sum(1).argmin()
        assert torch.equal(heavy, many[nearest])
        assert any(torch.equal(light, each) for each in few)  # both are as near to their mean
    alone = sampler([1, 0], 1, _rng_of(seed), Pixels())
    assert alone.w is not None
    torch.testing.assert_close(alone.w, torch.tensor([7 / 9, 7 / 9]))
    assert torch.equal(alone.x, batch.x[[2, 0]])


class Brighten:
    """Adds one random number to all images of a draw, so that the draw can be read off any of them."""

    def for_data(self, spec: DataSpec) -> Self:
        return self

    def draw(self, num: int, image_shape: Sequence[int], rng: torch.Generator, *, shared: bool) -> list[AugmentDraw]:
        return [AugmentDraw("brighten", {"by": torch.rand(1 if shared else num, generator=rng)})]

    def apply(self, x: Tensor, draws: Sequence[AugmentDraw], spec: DataSpec) -> Tensor:
        return x + draws[0].params["by"].view(-1, 1, 1, 1)


@pytest.mark.parametrize("real_first", [True, False])
def test_each_class_has_a_draw_of_its_own_that_both_sides_share(real_first: bool, tiny_store: ClassStore) -> None:
    """As DSA has it: siamese between real and synthetic images, and new for every class and step."""
    spec = tiny_store.spec
    pool = FreshPool("mlp", spec, 0, 4)
    source = Minibatches(tiny_store, UniformSampler(tiny_store, 4), pool, Brighten(), seed=0)
    owner = torch.tensor([2, 0, 1, 0])
    images = torch.rand(4, *spec.image_shape, generator=torch.Generator().manual_seed(0))
    syn = Batch(images, torch.eye(3)[owner], owner)
    found = []
    for step in range(3):
        view = source.view(step)
        view.net = pixels = Pixels()
        early = None if real_first else view.augment(syn).x
        view.real([Look(Features(), Mean())], [0, 1, 2])
        added = {"syn": (view.augment(syn).x if early is None else early) - syn.x}
        drawn = view.batch([0, 1, 2])
        added["real"] = torch.cat(pixels.shown) - drawn.x
        draws = added["syn"][[1, 2, 0], 0, 0, 0]
        for side, owners in (("syn", owner), ("real", drawn.owner)):
            torch.testing.assert_close(added[side], draws[owners].view(-1, 1, 1, 1).expand_as(added[side]))
        found += draws.tolist()
    found.sort()
    assert min(high - low for low, high in pairwise(found)) > 1e-3
