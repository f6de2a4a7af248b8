"""The student trainer: the protocol step by step, determinism, labels, weights, precision, and its refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latentdc.errors import DivergenceError, InputError, MissingExtraError
from latentdc.networks import ARCHITECTURES, Network, build, fingerprint
from latentdc.networks import compiled as compiled_module
from latentdc.networks import train as train_module
from latentdc.networks.train import TrainSpec, sgd, train_student
from latentdc.seeding import stream
from latentdc.types import DataSpec

SPEC = DataSpec((1, 8, 8), ("a", "b", "c"), (0.5,), (0.25,))


def _data(num: int = 12) -> tuple[Tensor, Tensor]:
    labels = torch.arange(num) % 3
    noise = torch.randint(0, 60, (num, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    noise[torch.arange(num), 0, :, 2 * labels] += 180
    return noise.to(torch.uint8), labels


def _student(arch: str = "mlp") -> Network:
    return build(arch, SPEC, seed=4, width=8)


def test_protocol_equals_the_authors_loop_written_out() -> None:
    """E + 1 passes; after pass E // 2 + 1 the rate falls tenfold and momentum is lost; the last network counts."""
    x, y = _data(10)
    trained = train_student(_student(), x, y, TrainSpec(epochs=6, batch_size=4), seed=3)
    net = _student().train()
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    lr = 0.01
    for epoch in range(6 + 1):
        order = torch.randperm(10, generator=stream(3, "student-shuffle", epoch))
        for rows in (order[:4], order[4:8], order[8:]):
            net.zero_grad()
            functional.cross_entropy(net(x[rows].float() / 255), y[rows]).backward()
            with torch.no_grad():
                for name, p in net.named_parameters():
                    assert p.grad is not None
                    velocity[name] = 0.9 * velocity[name] + p.grad + 5e-4 * p
                    p -= lr * velocity[name]
        if epoch == 6 // 2 + 1:
            lr *= 0.1
            velocity = {name: torch.zeros_like(v) for name, v in velocity.items()}
    for name, p in net.named_parameters():
        torch.testing.assert_close(trained.get_parameter(name), p, rtol=1e-5, atol=1e-7)


def test_milestones_are_a_plain_loop_and_an_optimiser_goes_on() -> None:
    """E passes, the rate stepped, the momentum kept; two calls with one optimiser are one longer training."""
    x, y = _data(8)
    whole = TrainSpec(epochs=4, batch_size=8, milestones=(2,), decay_factor=0.5)
    once = train_student(_student(), x, y, whole, seed=3)
    net = _student()
    optimiser = sgd(net, whole)
    for lr in (0.01, 0.005):
        train_student(net, x, y, TrainSpec(epochs=2, batch_size=8, lr=lr, milestones=()), optimiser=optimiser, seed=3)
    for name, p in net.named_parameters():
        torch.testing.assert_close(once.get_parameter(name), p, rtol=1e-5, atol=1e-7)


def test_mixing_needs_distributions_and_acts_on_every_batch() -> None:
    x, y = _data(8)
    spec, seen = TrainSpec(epochs=2, batch_size=4, milestones=()), []

    def mix(images: Tensor, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        seen.append(torch.rand((), generator=rng).item())
        return images, targets

    targets = functional.one_hot(y, 3)
    mixed = train_student(_student(), x, targets, spec, mix=mix, seed=0)
    assert len(set(seen)) == 4
    assert fingerprint(mixed) == fingerprint(train_student(_student(), x, targets, spec, seed=0))
    w = torch.arange(1.0, 9.0)
    weighted = train_student(_student(), x, targets, spec, w=w, mix=mix, seed=0)
    plain = train_student(_student(), x, targets, spec, w=w, seed=0)
    for name, value in plain.named_parameters():  # an image's weight goes with its label
        torch.testing.assert_close(weighted.get_parameter(name), value, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="give y as distributions"):
        train_student(_student(), x, y, spec, mix=mix, seed=0)


def test_spec_says_how_many_passes_and_when_the_rate_falls() -> None:
    assert (TrainSpec().passes, TrainSpec().renewed_after) == (1001, 501)
    assert [TrainSpec().lr_in(epoch) for epoch in (0, 501, 502, 1000)] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert TrainSpec(epochs=0).passes == 1
    stepped = TrainSpec(epochs=9, milestones=(6, 7), decay_factor=0.2)
    assert (stepped.passes, stepped.renewed_after) == (9, None)
    assert [stepped.lr_in(epoch) for epoch in (0, 5, 6, 7, 8)] == pytest.approx([0.01, 0.01, 0.002, 0.0004, 0.0004])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_repeats_bit_for_bit(arch: str) -> None:
    x, y = _data()

    def augment(images: Tensor, rng: torch.Generator) -> Tensor:
        return images + 0.05 * torch.randn(images.shape, generator=rng)

    spec = TrainSpec(epochs=3, batch_size=5)
    prints = [fingerprint(train_student(_student(arch), x, y, spec, seed=seed, augment=augment)) for seed in (1, 1, 2)]
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_learns(arch: str, precision: str) -> None:
    x, y = _data(30)
    net = train_student(_student(arch), x, y, TrainSpec(epochs=60, lr=0.05), seed=0, precision=precision)
    assert train_module.accuracy(net, x, y, precision=precision) > 90
    assert not net.training
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_uint8_and_float_images_and_late_conversion_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _data()
    spec = TrainSpec(epochs=2, batch_size=5)
    reference = fingerprint(train_student(_student(), x, y, spec, seed=0))
    assert fingerprint(train_student(_student(), x.float() / 255, y, spec, seed=0)) == reference
    monkeypatch.setattr(train_module, "_FLOAT_BYTES_KEPT", 0)
    assert fingerprint(train_student(_student(), x, y, spec, seed=0)) == reference
    assert x.dtype == torch.uint8


def test_one_hot_soft_labels_equal_hard_labels() -> None:
    x, y = _data()
    hard = train_student(_student(), x, y, TrainSpec(epochs=3), seed=0)
    soft = train_student(_student(), x, functional.one_hot(y, 3).double(), TrainSpec(epochs=3), seed=0)
    for one, other in zip(hard.parameters(), soft.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_count_relative_to_their_mean() -> None:
    x, y = _data()
    spec = TrainSpec(epochs=3, batch_size=12)
    w = torch.ones(12)
    w[::2] = 0
    plain = train_student(_student(), x, y, spec, seed=0)
    equal = train_student(_student(), x, y, spec, w=torch.full((12,), 7.0), seed=0)
    half = train_student(_student(), x, y, spec, w=w, seed=0)
    alone = train_student(_student(), x[1::2], y[1::2], spec, seed=0)
    for a, b, c, d in zip(*(net.parameters() for net in (plain, equal, half, alone)), strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(c, d)


def test_augmentation_gets_every_mini_batch_with_its_own_stream() -> None:
    x, y = _data(10)
    seen: list[tuple[int, int]] = []

    def augment(images: Tensor, rng: torch.Generator) -> Tensor:
        assert images.dtype == torch.float32
        assert float(images.max()) <= 1
        seen.append((len(images), rng.initial_seed()))
        return images

    done: list[tuple[int, int]] = []
    spec = TrainSpec(epochs=1, batch_size=4)
    train_student(_student(), x, y, spec, seed=0, augment=augment, progress=lambda *both: done.append(both))
    assert [num for num, _ in seen] == [4, 4, 2, 4, 4, 2]
    assert len({key for _, key in seen}) == 6
    assert done == [(1, 2), (2, 2)]


def test_batch_norm_students_move_their_statistics() -> None:
    x, y = _data()
    net = _student("resnet18")
    train_student(net, x, y, TrainSpec(epochs=1), seed=0)
    assert int(net.get_buffer("bn1.num_batches_tracked")) == 2


def test_what_the_trainer_refuses() -> None:
    x, y = _data()
    with pytest.raises(InputError, match="12 images, 11 labels"):
        train_student(_student(), x, y[:-1], seed=0)
    with pytest.raises(InputError, match="positive sum"):
        train_student(_student(), x, y, w=torch.zeros(12), seed=0)
    with pytest.raises(InputError, match='precision = "fp8"'):
        train_student(_student(), x, y, TrainSpec(epochs=1), seed=0, precision="fp8")
    with pytest.raises(InputError, match="batch_size = 0"):
        TrainSpec(batch_size=0)


def test_divergence_names_the_pass() -> None:
    x, y = _data()
    with pytest.raises(DivergenceError, match="in pass"):
        train_student(_student(), x, y, TrainSpec(epochs=120, lr=1e20), seed=0)


def test_compile_without_a_compiler_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled_module.missing_compiler("cpu") is not None
    x, y = _data()
    with pytest.raises(MissingExtraError, match="no-such-compiler"):
        train_student(_student(), x, y, TrainSpec(epochs=1), seed=0, compile=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_training_and_observing_agree_with_eager() -> None:
    x, y = _data(14)
    spec = TrainSpec(epochs=3, batch_size=8)  # two shapes: 8 and 6
    eager = train_student(_student("convnet"), x, y, spec, seed=0)
    fast = train_student(_student("convnet"), x, y, spec, seed=0, compile=True)
    for one, other in zip(eager.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    observe = compiled_module.observer(compile=True)
    frozen = [build("convnet", SPEC, seed=seed, width=8).eval().requires_grad_(False) for seed in range(3)]
    images = x.float().div(255).requires_grad_()
    for net in frozen:
        torch.testing.assert_close(observe(net, images).last, net.observe(images).last, rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(observe(net, images).last.square().sum(), images)
        (expected,) = torch.autograd.grad(net.observe(images).last.square().sum(), images)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)
