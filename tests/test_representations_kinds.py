"""Attention, logits, statistics and head variance are what their equations say."""

from __future__ import annotations

import pytest
import torch
from reference.attention_loop import attention_loop
from reference.head_variance_loop import head_variance_loop
from reference.statistics_loop import statistics_loop
from torch import nn

from latentdc.errors import InputError
from latentdc.networks import Network, build
from latentdc.representations import Attention, BatchStatistics, Features, HeadVariance, Logits, curvature
from latentdc.types import Batch, DataSpec, Observation

SPEC = DataSpec((1, 16, 16), ("a", "b"), (0.5,), (0.25,))
OWNER = torch.tensor([1, 0, 1, 0, 1])


def _net(arch: str = "convnet") -> Network:
    return build(arch, SPEC, seed=0, width=4).double().eval().requires_grad_(False)


def _batch() -> Batch:
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Batch(x, torch.eye(2, dtype=torch.float64)[OWNER], OWNER)


@pytest.mark.parametrize("power", [1.0, 2.5, 4.0])
def test_attention_equals_its_loop(power: float) -> None:
    net, batch = _net(), _batch()
    shown = Attention(power)(net, batch, differentiable=False)
    expected = attention_loop(net.observe(batch.x).maps[:-1], power)
    assert [layer.shape[1] for layer in shown] == [16 * 16, 8 * 8]
    for layer, each in zip(shown, expected, strict=True):
        torch.testing.assert_close(layer, torch.tensor(each, dtype=torch.float64))


def test_attention_of_a_residual_network_has_every_stage_but_the_last() -> None:
    shown = Attention()(_net("resnet18"), _batch(), differentiable=False)
    assert [layer.shape[1] for layer in shown] == [16 * 16, 8 * 8, 4 * 4]


def test_maps_are_what_each_depth_pools() -> None:
    net, batch = _net(), _batch()
    seen = net.observe(batch.x)
    for map_, feature in zip(seen.maps, seen.features, strict=True):
        torch.testing.assert_close(nn.functional.avg_pool2d(map_, 2).flatten(1), feature.flatten(1))
    *maps, last = Features(layer="maps")(net, batch, differentiable=False)
    torch.testing.assert_close(maps, [map_.flatten(1) for map_ in seen.maps])
    torch.testing.assert_close(last, seen.last)
    with pytest.raises(InputError, match=r'layer = "maps" looks at what is pooled .* tells nothing: .*"convnet"'):
        Features(layer="maps")(_net("mlp"), batch, differentiable=False)


class Half(nn.Module):
    """Shows maps in half precision that overflow it when raised to the fourth power."""

    def observe(self, x: torch.Tensor) -> Observation:
        maps = (20 + 80 * x).half()
        return Observation(maps.flatten(1)[:, :2], (maps, maps.flatten(1)), (maps, maps))


def test_powers_and_squares_are_taken_in_full_precision() -> None:
    batch = _batch()._replace(x=_batch().x.float())
    maps = (20 + 80 * batch.x).half().float()
    (map_,) = Attention()(Half(), batch, differentiable=False)
    torch.testing.assert_close(map_, nn.functional.normalize(maps.flatten(1) ** 4))
    statistics, _ = BatchStatistics()(Half(), batch, differentiable=False)
    torch.testing.assert_close(statistics, torch.cat([maps.mean((2, 3)), (maps**2).mean((2, 3))], 1))
    (logits,) = Logits()(Half(), batch, differentiable=False)
    assert logits.dtype == torch.float32


def test_attention_needs_maps() -> None:
    with pytest.raises(InputError, match=r'"attention" looks at maps .* shows none: use .*"convnet", or see = "fea'):
        Attention()(_net("mlp"), _batch(), differentiable=False)
    with pytest.raises(InputError, match=r"see\.power = 0\.5: give a finite number of at least 1"):
        Attention(0.5)


def test_logits_are_the_network_itself() -> None:
    net, batch = _net(), _batch()
    (shown,) = Logits()(net, batch, differentiable=False)
    assert torch.equal(shown, net(batch.x))


@pytest.mark.parametrize("arch", ["convnet", "mlp"])
def test_class_means_of_statistics_are_those_of_batch_normalisation(arch: str) -> None:
    net, batch = _net(arch), _batch()
    shown = BatchStatistics()(net, batch, differentiable=False)
    for points, layer in zip(shown, net.observe(batch.x).features, strict=True):
        channels = layer.shape[1]
        for cls in (0, 1):
            first, second = points[batch.owner == cls].mean(0).split(channels)
            mean, variance = statistics_loop(layer, OWNER, cls)
            torch.testing.assert_close(first, torch.tensor(mean, dtype=torch.float64))
            torch.testing.assert_close(second - first**2, torch.tensor(variance, dtype=torch.float64))


@pytest.mark.parametrize("arch", ["convnet", "mlp"])
def test_head_variance_equals_one_backward_for_each_image(arch: str) -> None:
    net, batch = _net(arch), _batch()
    batch.x.requires_grad_()
    (shown,) = HeadVariance()(net, batch, differentiable=True)
    expected = torch.stack([head_variance_loop(net, batch.x, OWNER, cls) for cls in (0, 1)])
    assert shown.shape == (2, 1, 2 * net.classifier.in_features)
    shown = shown.view_as(expected)
    torch.testing.assert_close(shown, expected)
    probe = torch.rand(shown.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((each * probe).sum(), batch.x)[0] for each in (shown, expected))
    torch.testing.assert_close(ours, theirs)


def test_head_variance_of_one_image_is_zero() -> None:
    alone = Batch(*(part[:1] for part in _batch()[:3]))
    (shown,) = HeadVariance()(_net(), alone, differentiable=False)
    torch.testing.assert_close(shown, torch.zeros_like(shown))


def test_head_variance_sees_many_images_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = _net(), _batch()
    (whole,) = HeadVariance()(net, batch, differentiable=False)
    monkeypatch.setattr(curvature, "_MOST_ROWS", 2)
    (parts,) = HeadVariance()(net, batch, differentiable=False)
    torch.testing.assert_close(whole, parts)
