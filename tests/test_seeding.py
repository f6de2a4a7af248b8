from __future__ import annotations

import torch

from latentdc.seeding import global_seed, key, stream


def test_a_stream_depends_on_every_part_of_its_key_and_on_nothing_else():
    base = (3, "augment", 5, 7)
    draw = torch.rand(4, generator=stream(*base))
    torch.rand(100)
    assert torch.equal(draw, torch.rand(4, generator=stream(*base)))
    for other in [(4, "augment", 5, 7), (3, "sampler", 5, 7), (3, "augment", 6, 7), (3, "augment", 5, 8)]:
        assert not torch.equal(draw, torch.rand(4, generator=stream(*other)))


def test_keys_fit_a_torch_seed_and_do_not_mix_neighbouring_fields():
    assert key(1, "a", 11, 1) != key(1, "a", 1, 11)
    assert all(0 <= key(seed, "init") < 2**63 for seed in range(50))


def test_global_seed_is_repeatable_and_leaves_the_callers_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with global_seed(1, "network"):
        first = torch.rand(3)
    with global_seed(1, "network"):
        assert torch.equal(first, torch.rand(3))
    torch.manual_seed(0)
    with global_seed(1, "network"):
        torch.rand(3)
    assert torch.equal(expected, torch.rand(2))
