"""Batched accuracy and embeddings."""

from __future__ import annotations

import pytest
import torch

from latentdc.errors import InputError
from latentdc.networks import build
from latentdc.networks.infer import accuracy, embed, observations, to_float
from latentdc.types import DataSpec

SPEC = DataSpec((1, 8, 8), ("a", "b", "c"), (0.5,), (0.25,))
IMAGES = torch.randint(0, 256, (11, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_accuracy_is_the_share_of_right_guesses_in_per_cent() -> None:
    net = build("resnet18", SPEC, seed=0, width=4)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    guesses = torch.cat([shown.logits.argmax(1) for shown in observations(net, IMAGES)])
    labels = guesses.clone()
    labels[:3] = (labels[:3] + 1) % 3
    assert accuracy(net, IMAGES, labels, batch_size=4) == pytest.approx(100 * 8 / 11)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("batch_size", [1, 4, 500])
def test_embed_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    net = build("convnet", SPEC, seed=0, width=8).eval()
    points = embed(net, IMAGES, batch_size=batch_size)
    assert points.dtype == torch.float32
    assert not points.requires_grad
    torch.testing.assert_close(points, net.observe(IMAGES.float() / 255).last.detach(), rtol=1e-5, atol=1e-6)


def test_embeddings_in_bf16_are_near_and_usable_in_a_graph() -> None:
    net = build("convnet", SPEC, seed=0, width=8)
    points = embed(net, IMAGES, precision="bf16")
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, embed(net, IMAGES), rtol=0.1, atol=0.05)
    scale = torch.ones((), requires_grad=True)
    (points * scale).sum().backward()
    assert scale.grad is not None


def test_gradients_stay_on_between_batches() -> None:
    net = build("mlp", SPEC, seed=0, width=4)
    for _ in observations(net, IMAGES, batch_size=5):
        assert torch.is_grad_enabled()


def test_only_uint8_is_scaled() -> None:
    assert float(to_float(torch.full((1,), 255, dtype=torch.uint8))) == 1.0
    x = torch.full((1,), 0.5)
    assert to_float(x) is x


def test_what_is_refused() -> None:
    net = build("mlp", SPEC, seed=0, width=4)
    with pytest.raises(InputError, match="11 images with 10 labels"):
        accuracy(net, IMAGES, torch.zeros(10, dtype=torch.int64))
    with pytest.raises(InputError, match="no images"):
        embed(net, IMAGES[:0])
    with pytest.raises(InputError, match="batch_size = 0"):
        embed(net, IMAGES, batch_size=0)
