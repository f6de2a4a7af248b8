"""Mini-batches: keyed draws, one augmentation per class and step, and the real side as a summary."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from latentdc.data.augment import DSA, NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Cosine, Mean, Mmd, Moments
from latentdc.errors import BundleError
from latentdc.networks import FixedPool, FreshPool, fingerprint
from latentdc.objectives import Match
from latentdc.representations import Features, Gradients, Logits
from latentdc.source import Look, Minibatches, MinibatchView
from latentdc.types import Net, Observation

SEE, BY = Features(), Mean()
LOOKS = [Look(SEE, BY)]


def _source(store: ClassStore, *, seed: int = 0, augmented: bool = True, num: int | None = 4) -> Minibatches:
    pool = FreshPool("convnet", store.spec, seed, width=4)
    return Minibatches(
        store, UniformSampler(store, 5), pool, DSA() if augmented else NoAugment(), seed=seed, num_per_class=num
    )


def test_a_view_is_a_function_of_seed_and_step(tiny_store: ClassStore) -> None:
    one, same = _source(tiny_store).view(3), _source(tiny_store).view(3)
    syn = tiny_store.batch([0, 13, 25, 1])
    assert fingerprint(one.net) == fingerprint(same.net)
    assert torch.equal(one.batch([0, 2]).x, same.batch([2, 0]).x)
    assert torch.equal(one.augment(syn).x, same.augment(syn).x)
    later = _source(tiny_store).view(4)
    assert fingerprint(later.net) != fingerprint(one.net)
    assert not torch.equal(later.batch([0, 2]).x, one.batch([0, 2]).x)


def test_a_class_is_drawn_alike_whoever_asks_for_more(tiny_store: ClassStore) -> None:
    """Ranks that share out the classes must see what one process would see."""
    view, shard = _source(tiny_store).view(0), _source(tiny_store).view(0)
    ((whole,),), ((part,),) = view.real(LOOKS, [0, 1, 2]), shard.real(LOOKS, [1])
    torch.testing.assert_close(whole.values[1], part.values[1])
    assert part.counts.tolist() == [0, 4, 0]
    assert whole.counts.tolist() == [4, 4, 4]


def test_rows_keep_their_place_and_the_draw_of_their_class(tiny_store: ClassStore) -> None:
    view = _source(tiny_store).view(1)
    mixed = tiny_store.batch([30, 0, 13, 31, 1])
    out = view.augment(mixed)
    for row, cls in enumerate(mixed.owner.tolist()):
        only = view.augment(tiny_store.batch(torch.tensor([[30, 0, 13, 31, 1][row]])))
        torch.testing.assert_close(out.x[row], only.x[0])
        assert int(out.owner[row]) == cls


def test_real_is_the_summary_of_the_augmented_batch(tiny_store: ClassStore) -> None:
    view = _source(tiny_store).view(2)
    batch = view.batch([0, 1, 2])
    points = view.net.observe(view.augment(batch).x).last
    ((real,),) = view.real(LOOKS, [0, 1, 2])
    torch.testing.assert_close(real.values, BY.summarise(points, batch.owner, 3).values)


def test_sampler_decides_the_number_by_default(tiny_store: ClassStore) -> None:
    assert len(_source(tiny_store, num=None).view(0).batch([0]).x) == 5


def test_flip_is_left_out_where_it_changes_the_label(tiny_store: ClassStore) -> None:
    digits = ClassStore(tiny_store.images, tiny_store.labels, dataclasses.replace(tiny_store.spec, mirror=False))
    assert "flip" not in _source(digits).augment.groups  # type: ignore[attr-defined]
    assert "flip" in _source(tiny_store).augment.groups  # type: ignore[attr-defined]


def test_pairwise_discrepancies_work_from_mini_batches(tiny_store: ClassStore) -> None:
    view, syn = _source(tiny_store).view(0), tiny_store.batch([0, 13, 25, 26])
    loss = Match(SEE, Mmd())(view, syn)
    assert 0 < float(loss) < 30


def test_state_belongs_to_the_pool(tiny_store: ClassStore) -> None:
    source = _source(tiny_store)
    source.load_state_dict(source.state_dict())
    other = Minibatches(
        tiny_store, UniformSampler(tiny_store), FixedPool("mlp", tiny_store.spec, 0, 2), NoAugment(), seed=0
    )
    with pytest.raises(BundleError, match="arch"):
        source.load_state_dict(other.state_dict())


class SpyNet:
    """Counts the images it is shown at a time."""

    def __init__(self, net: Net) -> None:
        self.net, self.sizes = net, []

    def observe(self, x: torch.Tensor) -> Observation:
        self.sizes.append(len(x))
        return self.net.observe(x)


def test_the_network_sees_many_real_images_in_parts(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = _source(tiny_store).view(0).real([Look(Features("all"), BY)], [0, 1, 2])
    monkeypatch.setattr("latentdc.source._MOST_ROWS", 5)
    view = _source(tiny_store).view(0)
    spy = view.net = SpyNet(view.net)
    (parts,) = view.real([Look(Features("all"), BY)], [0, 1, 2])
    assert spy.sizes == [4, 4, 4]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.values, other.values)
        assert one.counts.tolist() == other.counts.tolist() == [4, 4, 4]
    ((few,),) = view.real(LOOKS, [0, 1])
    assert spy.sizes[3:] == [4, 4]
    torch.testing.assert_close(few.values[:2], whole[-1].values[:2])


def test_what_adds_up_is_added_up_part_by_part(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the images' weights; what does not is summarised of all points at once."""

    def view() -> MinibatchView:
        made = _source(tiny_store).view(0)
        drawn = made.batch([0, 1, 2])
        made._batches[(0, 1, 2)] = drawn._replace(w=torch.arange(1.0, 13))
        return made

    looks = [Look(Features(), Mean()), Look(Features(), Mmd())]
    (mean,), (points,) = view().real(looks, [0, 1, 2])
    monkeypatch.setattr("latentdc.source._MOST_ROWS", 5)
    sizes: dict[str, list[int]] = {"Mean": [], "Mmd": []}
    for part in (Mean, Mmd):
        whole = part.summarise

        def spied(self: Any, given: torch.Tensor, *rest: Any, whole: Any = whole, **more: Any) -> Any:
            sizes[type(self).__name__].append(len(given))
            return whole(self, given, *rest, **more)

        monkeypatch.setattr(part, "summarise", spied)
    (summed,), (held,) = view().real(looks, [0, 1, 2])
    assert sizes == {"Mean": [4, 4, 4], "Mmd": [12]}
    torch.testing.assert_close(summed.values, mean.values)
    torch.testing.assert_close(summed.counts, torch.tensor([10.0, 26.0, 42.0], dtype=torch.float64))
    torch.testing.assert_close(held.values, points.values)
    torch.testing.assert_close(held.weights, points.weights)


def test_looks_asked_together_share_their_pass(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """And show what each would show alone, points as well as parameters."""
    monkeypatch.setattr("latentdc.source._MOST_ROWS", 5)
    looks = [Look(Features("all"), BY), Look(Logits(), Moments()), Look(Gradients(), Cosine())]
    view, alone = _source(tiny_store).view(0), _source(tiny_store).view(0)
    spy = view.net = SpyNet(view.net)
    together = view.real(looks, [0, 1, 2])
    assert spy.sizes == [4, 4, 4]
    for look, found in zip(looks, together, strict=True):
        (expected,) = alone.real([look], [0, 1, 2])
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.values, other.values)
            assert one.counts.tolist() == other.counts.tolist()
