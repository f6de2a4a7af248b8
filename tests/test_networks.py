"""Architectures: sizes published in the literature, values against independent restatements, construction by seed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torchvision.models import resnet18

from latentdc.errors import InputError
from latentdc.networks import ARCHITECTURES, build, fingerprint
from latentdc.networks.convnet import ConvNet, depth_for
from latentdc.types import DataSpec

CIFAR10 = DataSpec((3, 32, 32), tuple("abcdefghij"), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), name="cifar10")
FASHION = DataSpec((1, 28, 28), tuple("abcdefghij"), (0.2861,), (0.3530,), name="fashion-mnist")
SMALL = DataSpec((3, 16, 16), tuple("abc"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def _plain() -> ModuleType:
    path = Path(__file__).parent / "reference" / "convnet_plain.py"
    spec = importlib.util.spec_from_file_location("convnet_plain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("spec", "published"), [(CIFAR10, 320_010), (FASHION, 317_706)])
def test_convnet_has_the_published_number_of_parameters(spec: DataSpec, published: int) -> None:
    net = build("convnet", spec, seed=0)
    assert _size(net) == published
    shown = net.observe(torch.rand(1, *spec.image_shape))
    assert shown.last.shape == (1, 2048)
    assert [f.shape[1:] for f in shown.features[:-1]] == [(128, 16, 16), (128, 8, 8)]


def test_convnet_of_100_classes() -> None:
    spec = DataSpec((3, 32, 32), tuple(map(str, range(100))), CIFAR10.mean, CIFAR10.std)
    assert _size(build("convnet", spec, seed=0)) == 504_420


@pytest.mark.parametrize(("side", "depth"), [(8, 3), (28, 3), (32, 3), (33, 4), (64, 4), (128, 5), (256, 6)])
def test_convnet_depth_follows_the_resolution(side: int, depth: int) -> None:
    assert depth_for(side) == depth


@pytest.mark.parametrize("side", [64, 128, 256])
def test_convnet_ends_at_four_by_four(side: int) -> None:
    net = build("convnet", DataSpec((3, side, side), ("a", "b"), SMALL.mean, SMALL.std), seed=0, width=4)
    assert net.observe(torch.rand(1, 3, side, side)).last.shape == (1, 4 * 4 * 4)


def test_images_the_convnet_cannot_take() -> None:
    with pytest.raises(InputError, match="too large"):
        build("convnet", DataSpec((1, 300, 300), ("a", "b"), (0.5,), (0.5,)), seed=0)
    with pytest.raises(InputError, match="vanish"):
        build("convnet", DataSpec((1, 6, 6), ("a", "b"), (0.5,), (0.5,)), seed=0)


@pytest.mark.parametrize(("spec", "first_padding"), [(SMALL, 1), (FASHION, 3)])
def test_convnet_equals_its_formula(spec: DataSpec, first_padding: int) -> None:
    net = build("convnet", spec, seed=3, width=5).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    x = torch.rand(4, *spec.image_shape, dtype=torch.float64)
    embedding, logits = _plain().forward(net.state_dict(), x, depth=3, first_padding=first_padding)
    shown = net.observe(x)
    torch.testing.assert_close(shown.last, embedding, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(shown.logits, logits, rtol=1e-10, atol=1e-10)


def test_resnet18_is_torchvisions() -> None:
    net = build("resnet18", SMALL, seed=0)
    theirs = resnet18(num_classes=3)
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    theirs.load_state_dict({name: v for name, v in net.state_dict().items() if name not in ("mean", "std")})
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net.train()(x), theirs.train()((x - net.mean) / net.std), rtol=1e-4, atol=1e-5)


def test_resnet18_stem_of_large_images() -> None:
    net = build("resnet18", DataSpec((1, 96, 96), ("a", "b"), (0.5,), (0.5,)), seed=0, width=4)
    assert [f.shape[-1] for f in net.observe(torch.rand(2, 1, 96, 96)).features[:-1]] == [24, 12, 6, 3]
    small = build("resnet18", DataSpec((1, 64, 64), ("a", "b"), (0.5,), (0.5,)), seed=0, width=4)
    assert [f.shape[-1] for f in small.observe(torch.rand(2, 1, 64, 64)).features[:-1]] == [64, 32, 16, 8]


def test_mlp_has_three_layers_of_128() -> None:
    assert _size(build("mlp", FASHION, seed=0)) == (784 * 128 + 128) + (128 * 128 + 128) + (128 * 10 + 10)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_shows_features_logits_and_a_gradient(arch: str) -> None:
    net = build(arch, SMALL, seed=0, width=8).eval().requires_grad_(False)
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    shown = net.observe(x)
    assert shown.logits.shape == (2, 3)
    assert shown.last.ndim == 2
    assert shown.last is shown.features[-1]
    torch.testing.assert_close(net(x), shown.logits)
    shown.last.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert float(x.grad.abs().max()) > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_standardises_inside(arch: str) -> None:
    net = build(arch, SMALL, seed=0, width=8).eval()
    plain = DataSpec(SMALL.image_shape, SMALL.class_names, (0.0,) * 3, (1.0,) * 3)
    bare = build(arch, plain, seed=0, width=8).eval()
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(net(x), bare((x - net.mean) / net.std))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_construction_depends_on_its_arguments_alone(arch: str) -> None:
    first = fingerprint(build(arch, SMALL, seed=1, width=8))
    torch.rand(7)
    before = torch.random.get_rng_state()
    assert fingerprint(build(arch, SMALL, seed=1, width=8)) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    others = [build(arch, SMALL, seed=2, width=8), build(arch, SMALL, seed=1, index=1, width=8)]
    others.append(build(arch, SMALL, seed=1, width=8, purpose="other"))
    assert len({first, *map(fingerprint, others)}) == 4


def test_names_that_cannot_be_built() -> None:
    with pytest.raises(InputError, match='Did you mean "convnet"'):
        build("convent", SMALL, seed=0)
    with pytest.raises(InputError, match="cannot import"):
        build("latentdc.networks.convnet:Missing", SMALL, seed=0)
    with pytest.raises(InputError, match="not a subclass"):
        build("latentdc.types:DataSpec", SMALL, seed=0)
    with pytest.raises(InputError, match="width = 0"):
        build("convnet", SMALL, seed=0, width=0)
    with pytest.raises(InputError, match="3 channels but 1 means"):
        build("convnet", DataSpec((3, 8, 8), ("a", "b"), (0.5,), (0.5,)), seed=0)


def test_a_network_of_ones_own_by_dotted_path() -> None:
    net = build("latentdc.networks.convnet:ConvNet", SMALL, seed=1, width=8)
    assert isinstance(net, ConvNet)
    assert fingerprint(net) == fingerprint(build("convnet", SMALL, seed=1, width=8))


def test_fingerprint_sees_one_changed_bit() -> None:
    net = build("convnet", SMALL, seed=1, width=8)
    before = fingerprint(net)
    with torch.no_grad():
        net.get_parameter("classifier.bias")[0].add_(1e-6)
    assert fingerprint(net) != before
