"""Backbones that others trained: they show what their own library shows, with a gradient, and never change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from standin_hub import Hub
from tiny_backbones import MADE, backbone_folder, write_backbone
from torch.autograd import gradcheck
from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

from latentdc.errors import BundleError, InputError
from latentdc.networks import PretrainedPool, fingerprint
from latentdc.networks.pretrained import from_torchvision
from latentdc.networks.pretrained.backbone import Backbone
from latentdc.networks.pretrained.from_torchvision import TorchvisionBackbone
from latentdc.networks.pretrained.seeing import Margins, Seeing, centred, resized
from latentdc.seeding import global_seed
from latentdc.types import DataSpec

GREY = DataSpec((1, 8, 8), ("a", "b"), (0.4,), (0.3,))
WIDE = DataSpec((3, 20, 33), ("a", "b"), (0.4,) * 3, (0.3,) * 3)


def load(model: str, spec: DataSpec = GREY, **options: str) -> Backbone:
    net = PretrainedPool("convnet", spec, 0, model=model, **options).network(0)  # type: ignore[arg-type]
    assert isinstance(net, Backbone)
    return net


def images(spec: DataSpec, num: int = 2, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, *spec.image_shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MADE)
def test_shows_what_transformers_shows(name: str) -> None:
    """The library's own classes, on the library's own preprocessing of the same images."""
    folder, x = backbone_folder(name), images(WIDE)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=255 * x, return_tensors="pt")["pixel_values"]
    model = MADE[name][0]().eval()
    model = type(model).from_pretrained(folder).eval()
    tower = {"clip": "vision_model", "vit-classifier": "vit"}.get(name)
    shown = (getattr(model, tower) if tower else model)(pixel_values=pixels, output_hidden_states=True)
    last = shown.last_hidden_state[:, 0] if name == "vit-classifier" else shown.pooler_output.flatten(1)
    states = shown.hidden_states[1:]
    maps = [each if each.ndim == 4 else each[:, 1:].transpose(1, 2).reshape(2, 8, 2, 2) for each in states]
    got = load(folder, WIDE, depths="maps").observe(x).features
    assert len(got) == 3
    for mine, its in zip(got, (*maps, last), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-3)
    pooled = load(folder, WIDE).observe(x).features
    torch.testing.assert_close(pooled[0], maps[0].mean((2, 3)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MADE)
def test_images_of_bytes_are_seen_as_pil_resizes_them(name: str) -> None:
    """Up to what rounding to bytes and clamping change there: a few of 255 levels, in standard deviations."""
    folder = backbone_folder(name)
    net = load(folder, WIDE)
    ramp = np.add.outer(np.arange(20) * 4, np.arange(33) * 4).astype(np.uint8)
    picture = Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1))
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    its = torch.as_tensor(processor(images=picture, return_tensors="pt")["pixel_values"])
    x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(net.standardise(net.seeing.frame(x)), its, rtol=0, atol=0.02)


@pytest.fixture(scope="module")
def shuffle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest classifier of torchvision, as a file of random weights."""
    with global_seed(0, "shuffle"):
        model = shufflenet_v2_x0_5()
    path = tmp_path_factory.mktemp("torchvision") / "weights.pth"
    torch.save(model.state_dict(), path)
    return path


def test_shows_what_torchvision_shows(shuffle: Path) -> None:
    x = images(WIDE)
    model = shufflenet_v2_x0_5().eval()
    model.load_state_dict(torch.load(shuffle, weights_only=True))
    seen: dict[str, torch.Tensor] = {}
    for name in ("conv1", "maxpool", "stage2", "stage3", "conv5"):
        part = getattr(model, name)
        part.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    model.fc.register_forward_hook(lambda _, given, __: seen.__setitem__("last", given[0]))
    with torch.no_grad():
        model(ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()(x))
        net = load("torchvision:shufflenet_v2_x0_5", WIDE, weights=str(shuffle), depths="maps")
        got = net.observe(x).features
    assert [tuple(each.shape[1:]) for each in got][1:] == [
        (24, 56, 56),
        (48, 28, 28),
        (96, 14, 14),
        (1024, 7, 7),
        (1024,),
    ]
    for mine, name in zip(got, seen, strict=True):
        torch.testing.assert_close(mine, seen[name], rtol=1e-4, atol=1e-5)
    assert not any(module.training for module in net.modules())


def test_default_weights_come_from_the_cache_of_torch(
    shuffle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = ShuffleNet_V2_X0_5_Weights.DEFAULT
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(shuffle.read_bytes())
    of_file = load("torchvision:shufflenet_v2_x0_5", weights=str(shuffle))
    assert fingerprint(load("torchvision:shufflenet_v2_x0_5")) == fingerprint(of_file)
    cached.unlink()
    monkeypatch.setattr(type(weights), "get_state_dict", _unreachable)
    with pytest.raises(InputError, match=r"not in torch's cache.*no route.*source\.pool\.weights"):
        load("torchvision:shufflenet_v2_x0_5")


def _unreachable(*_: object, **__: object) -> None:
    raise OSError("no route")


def test_the_gradient_is_right() -> None:
    """Against central differences, through resizing, cutting and the whole model."""
    net = load(backbone_folder(), GREY, depths="maps").double()
    x = images(GREY, 1).double().requires_grad_()
    assert gradcheck(lambda x: net.observe(x).features, (x,), eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MADE)
def test_use_changes_nothing_and_repeats_itself(name: str) -> None:
    before = torch.random.get_rng_state()
    net, again = load(backbone_folder(name)), load(backbone_folder(name))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert fingerprint(net) == fingerprint(again)
    kept, x = fingerprint(net), images(GREY)
    assert torch.equal(net.observe(x).last, again.observe(x).last)
    assert torch.allclose(net.observe(x[:1]).last, net.observe(x).last[:1], atol=1e-5)
    assert fingerprint(net) == kept


def test_the_same_weights_seen_otherwise_are_another_network(tmp_path: Path) -> None:
    folder = write_backbone(tmp_path)
    found = {fingerprint(load(str(folder))), fingerprint(load(str(folder), depths="maps"))}
    file = folder / "preprocessor_config.json"
    for change in ({"resample": 2}, {"size": {"shortest_edge": 14}}, {"image_mean": [0.5, 0.5, 0.5]}):
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        found.add(fingerprint(load(str(folder))))
    assert len(found) == 5
    assert fingerprint(load(str(write_backbone(tmp_path, seed=1)))) not in found


def test_has_no_class_scores() -> None:
    net = load(backbone_folder())
    with pytest.raises(InputError, match="knows no classes of these data: look at its features"):
        net(images(GREY))


def test_is_fetched_from_the_hub_by_revision(hub: Hub) -> None:
    folder = Path(backbone_folder())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.create("somebody/backbone")
    commit = hub.push("somebody/backbone", {**files, "modeling.py": b"raise SystemExit"})
    hub.push("somebody/backbone", {"README.md": b"gone"})
    assert fingerprint(load(f"somebody/backbone@{commit}")) == fingerprint(load(str(folder)))
    assert "modeling.py" not in hub.fetched
    with pytest.raises(InputError, match=r'"somebody/other" is no folder of a model, and the Hub did not give it'):
        load("somebody/other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'model is missing: give "torchvision:resnet18"'),
        ({"model": "nowhere"}, 'source.pool.model = "nowhere": there is no such folder; give'),
        ({"model": "torchvision:resnet19"}, 'no such image classifier of torchvision. Did you mean "resnet1'),
        (
            {"model": "torchvision:squeezenet1_1", "weights": "w.pth"},
            'source.pool.weights = "w.pth": there is no such file',
        ),
        ({"model": "some/model", "weights": "w.pth"}, "a classifier of torchvision reads them"),
        ({"model": "some/model", "depths": "deep"}, 'depths = "deep": give "pooled" or "maps"'),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PretrainedPool("convnet", GREY, 0, **options).network(0)  # type: ignore[arg-type]


def test_other_weights_are_refused(shuffle: Path, tmp_path: Path) -> None:
    name = "torchvision:mobilenet_v3_small"
    with pytest.raises(BundleError, match=r'weights.pth: not the weights of "torchvision:mobilenet_v3_small"'):
        load(name, weights=str(shuffle))
    code, lists = tmp_path / "code.pth", tmp_path / "lists.pth"
    torch.save({"run": print}, code)
    torch.save({"numbers": [1.0]}, lists)
    (tmp_path / "empty.pth").touch()
    for path, message in (
        (code, "read as weights"),
        (tmp_path / "empty.pth", "as weights, .* EOFError"),
        (lists, "holds no state dictionary"),
    ):
        with pytest.raises(BundleError, match=message):
            from_torchvision.load("shufflenet_v2_x0_5", GREY, path, maps=False)


def test_folders_that_are_no_backbones_are_refused(tmp_path: Path) -> None:
    folder = write_backbone(tmp_path / "dinov2")
    config, numbers, weights = (
        folder / name for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    )
    with pytest.raises(InputError, match="sees 3 channels, the images have 2"):
        load(str(folder), DataSpec((2, 8, 8), ("a",), (0.5,) * 2, (0.5,) * 2))
    told = json.loads(numbers.read_text())
    for change, message in (
        ({"resample": 0}, "resample = 0: a shortest edge"),
        ({"rescale_factor": 1 / 127.5}, "prepares its images in a way that latentdc does not know"),
        ({"crop_size": {"height": 3, "width": 3}}, r"cannot see images of \(3, 3\) pixels"),
    ):
        numbers.write_text(json.dumps(told | change))
        with pytest.raises(InputError, match=message):
            load(str(folder))
    numbers.write_text(json.dumps(told))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(BundleError, match="weights of Dinov2Model are missing or of another shape: encoder"):
        load(str(folder))
    weights.write_bytes(b"cut")
    with pytest.raises(BundleError, match="cannot be loaded by transformers"):
        load(str(folder))
    numbers.unlink()
    with pytest.raises(BundleError, match=r"preprocessor_config\.json is missing"):
        load(str(folder))


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**_small_text())).save_pretrained(tmp_path)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="BertModel sees no images; give a vision model"):
        load(str(tmp_path))


def _small_text() -> dict[str, int]:
    return {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}


def test_a_model_without_maps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdc.networks.pretrained.from_transformers import TransformersBackbone

    monkeypatch.setattr(TransformersBackbone, "_map", lambda *_: None)
    with pytest.raises(InputError, match=r'depths = "maps": ".*" shows none; use depths = "pooled"'):
        load(backbone_folder(), depths="maps")


def test_a_classifier_that_is_not_linear_is_refused() -> None:
    from torchvision.models import squeezenet1_1

    with pytest.raises(InputError, match="SqueezeNet has no linear classifier"):
        TorchvisionBackbone(
            squeezenet1_1(), GREY, Seeing((0.5,), (0.5,), (8, 8), Margins(0, 0, 0, 0), "bilinear"), maps=False
        )


def test_sizes_and_margins() -> None:
    assert resized(20, 33, 16) == (16, 26)
    assert resized(33, 20, 16) == (26, 16)
    assert centred((16, 26), (14, 14), int) == Margins(-6, -6, -1, -1)
    assert centred((17, 17), (14, 14), round) == Margins(-2, -1, -2, -1)
    assert centred((17, 17), (14, 14), int) == Margins(-1, -2, -1, -2)
    assert centred((4, 4), (7, 4), int) == Margins(0, 0, 1, 2)
