from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore, channel_statistics, from_arrays
from latentdc.errors import DataError, InputError
from latentdc.seeding import stream


def shuffled(store: ClassStore, seed: int = 3) -> ClassStore:
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))
    return from_arrays(store.images[order], store.labels[order], store.spec.class_names, name=store.spec.name)


def test_images_are_grouped_by_class_and_keep_their_order_within_it():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    store = from_arrays(images, [1, 0, 1, 0, 2, 1], ["a", "b", "c"])
    assert store.images[:, 0, 0, 0].tolist() == [1, 3, 0, 2, 5, 4]
    assert store.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert store.counts == (2, 3, 1)
    assert store.of_class(1)[:, 0, 0, 0].tolist() == [0, 2, 5]
    assert store.of_class(1).data_ptr() == store.images[2:].data_ptr()


def test_sorted_images_are_not_copied(tiny_store):
    again = ClassStore(tiny_store.images, tiny_store.labels, tiny_store.spec)
    assert again.images.data_ptr() == tiny_store.images.data_ptr()
    assert tiny_store.images.dtype == torch.uint8


def test_a_batch_is_float_in_the_unit_interval_with_one_hot_targets(tiny_store):
    batch = tiny_store.batch([0, 13, 35])
    assert torch.equal(batch.x, tiny_store.images[[0, 13, 35]].float() / 255)
    assert batch.owner.tolist() == [0, 1, 2]
    assert torch.equal(batch.y, torch.eye(3))


def test_statistics_are_those_of_the_pixels(make_store):
    store = make_store(40, channels=3)
    values = store.images.double() / 255
    mean, std = channel_statistics(store.images)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(std, values.permute(1, 0, 2, 3).flatten(1).std(1, correction=0), atol=1e-12)
    assert store.spec.mean == mean


def test_given_statistics_are_kept(tiny_store):
    store = from_arrays(tiny_store.images, tiny_store.labels, "abc", mean=[0.25], std=[0.5], mirror=False)
    assert (store.spec.mean, store.spec.std, store.spec.mirror) == ((0.25,), (0.5,), False)


def test_the_fingerprint_ignores_order_and_sees_every_pixel_and_label(tiny_store):
    assert shuffled(tiny_store).spec.fingerprint == tiny_store.spec.fingerprint
    images, labels = tiny_store.images.clone(), tiny_store.labels.clone()
    images[5, 0, 3, 3] ^= 1
    assert from_arrays(images, labels, "abc").spec.fingerprint != tiny_store.spec.fingerprint
    labels[11] = 1
    assert from_arrays(tiny_store.images, labels, "abc").spec.fingerprint != tiny_store.spec.fingerprint


def test_the_held_out_slice_is_the_same_for_any_order_and_disjoint_from_the_rest(make_store):
    store = make_store(20)
    rest, held = store.holdout(0.1)
    assert rest.counts == (18,) * 3
    assert held.counts == (2,) * 3
    _, again = shuffled(store).holdout(0.1)
    assert again.fingerprint() == held.fingerprint()
    hashes = {bytes(d) for d in rest.digests}
    assert not hashes & {bytes(d) for d in held.digests}
    assert held.spec == rest.spec
    assert rest.spec.fingerprint not in ("", store.spec.fingerprint)


def test_the_held_out_slice_is_of_lowest_hashes_per_class(make_store):
    rest, held = make_store(20).holdout(0.2)
    for cls in range(3):
        kept = min(bytes(rest.digests[i]) for i in range(*rest.offsets[cls : cls + 2]))
        assert all(bytes(held.digests[i]) < kept for i in range(*held.offsets[cls : cls + 2]))


def test_a_subset_hashes_like_a_store_built_from_its_images(tiny_store):
    rows = [0, 3, 20, 30]
    part = tiny_store.subset(rows)
    fresh = from_arrays(tiny_store.images[rows], tiny_store.labels[rows], tiny_store.spec.class_names)
    assert part.spec.fingerprint == fresh.spec.fingerprint
    assert part.spec.mean == tiny_store.spec.mean


def test_limit_keeps_the_first_images_of_each_class(tiny_store):
    few = tiny_store.limit(2)
    assert few.counts == (2, 2, 2)
    assert torch.equal(few.of_class(2), tiny_store.of_class(2)[:2])


def test_choosing_classes_renumbers_them_in_the_order_asked(tiny_store):
    two = tiny_store.choose([2, 0])
    assert two.spec.class_names == ("class-2", "class-0")
    assert torch.equal(two.of_class(0), tiny_store.of_class(2))
    assert torch.equal(two.of_class(1), tiny_store.of_class(0))


def test_classes_may_differ_in_size_and_the_sampler_gives_what_there_is(tiny_store):
    store = tiny_store.subset([0, 12, 13, 24, 25, 26])
    assert store.counts == (1, 2, 3)
    batch = UniformSampler(store, 2)([0, 1, 2], None, lambda c: stream(0, "sampler", 0, c))
    assert batch.owner.tolist() == [0, 1, 1, 2, 2]


def test_a_draw_of_a_class_does_not_depend_on_the_other_classes(tiny_store):
    sampler = UniformSampler(tiny_store, 4)
    both = sampler([0, 2], None, lambda c: stream(7, "sampler", 5, c))
    alone = sampler([2], 4, lambda c: stream(7, "sampler", 5, c))
    assert torch.equal(both.x[4:], alone.x)
    assert len({bytes(x.numpy().tobytes()) for x in alone.x}) == 4
    other = sampler([2], 4, lambda c: stream(7, "sampler", 6, c))
    assert not torch.equal(other.x, alone.x)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 0, 0], ["cat"], r"only 1 class \(cat\).*at least two"),
        ([0, 1, 3], ["a", "b", "c"], r"1 labels are out of range, the first is 3 at row 2; with 3 classes.* 0 to 2"),
        ([0, -1, 1], ["a", "b"], "the first is -1 at row 1"),
        ([0, 1], ["a", "b"], "labels are .* for 3 images; give one integer per image"),
        ([0.0, 1.0, 1.0], ["a", "b"], "give one integer per image"),
        ([0, 0, 1], ["a", "b", "c"], "no image of class 'c'.*add images, or leave the class out"),
        ([0, 0, 1], ["a", "a"], "class names repeat: a, a"),
    ],
)
def test_unfit_labels_are_refused_with_a_reason(labels, names, message):
    with pytest.raises(DataError, match=message):
        from_arrays(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), labels, names, name="pets")


def test_unfit_images_are_refused_with_a_reason(tiny_store):
    with pytest.raises(DataError, match=r"torch.float32 \(3, 1, 4, 4\); give uint8"):
        from_arrays(torch.zeros(3, 1, 4, 4), [0, 1, 1], "ab")
    spec = dataclasses.replace(tiny_store.spec, image_shape=(1, 9, 9))
    with pytest.raises(DataError, match=r"give uint8 \(n, 1, 9, 9\)"):
        ClassStore(tiny_store.images, tiny_store.labels, spec)


def test_fewer_images_than_asked_names_class_number_and_maximum(tiny_store):
    with pytest.raises(DataError, match=r'13 images of class "class-1".*it has 12. Ask for at most 12 per class'):
        tiny_store.pick(1, 13, torch.Generator())
    with pytest.raises(DataError, match="100 images of class"):
        tiny_store.limit(100)
    with pytest.raises(DataError, match=r"has 1 image, of which none can be held out: give two"):
        tiny_store.limit(1).holdout()
    with pytest.raises(DataError, match="between 0 and 1"):
        tiny_store.holdout(1.5)
    with pytest.raises(InputError, match="at least 1 image"):
        UniformSampler(tiny_store, 0)


def test_statistics_of_another_set_leave_images_and_fingerprint_alone(tiny_store):
    other = tiny_store.with_statistics([0.1], [0.9])
    assert (other.spec.mean, other.spec.std) == ((0.1,), (0.9,))
    assert other.spec.fingerprint == tiny_store.spec.fingerprint
    assert torch.equal(other.images, tiny_store.images)
    with pytest.raises(DataError, match="statistics of 3 channels for images of 1"):
        tiny_store.with_statistics([0.1] * 3, [0.9] * 3)
