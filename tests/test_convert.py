"""Converters on files in the sources' own layouts: the same image as a restatement, and every refusal's message."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import foreign_checkpoints as foreign
import numpy
import pytest
import torch
from reference import biggan_plain, stylegan2_plain
from safetensors.torch import save_file
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.convert.run import UNSEEN, convert
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, InputError
from latentdc.seeding import stream

LABEL = torch.tensor([0, 2, 1])
ATTRIBUTES = {"mapping.fc0.bias_gain": 0.02, "synthesis.b4.conv1.conv_clamp": 2.0}


def drawn(decoder: Any) -> torch.Tensor:
    return decoder.prior(LABEL, stream(0, "convert"))["z"]


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


BIGGANS: dict[str, tuple[str, Callable[[], foreign.State], Callable[..., torch.Tensor]]] = {
    "brock": ("biggan-pytorch", foreign.biggan_pytorch, partial(biggan_plain.biggan_pytorch, blocks=2)),
    "brock, no shared embedding": (
        "biggan-pytorch",
        partial(foreign.biggan_pytorch, shared=False),
        partial(biggan_plain.biggan_pytorch, blocks=2),
    ),
    "brock, no spectral norm": (
        "biggan-pytorch",
        partial(foreign.biggan_pytorch, style="none"),
        partial(biggan_plain.biggan_pytorch, blocks=2),
    ),
    "studiogan": ("studiogan", foreign.studiogan, partial(biggan_plain.studiogan, entries=3)),
    "pretrained": (
        "pytorch-pretrained-biggan",
        foreign.pretrained_biggan,
        partial(biggan_plain.pretrained, entries=3, index=4),
    ),
}


@pytest.mark.parametrize("case", BIGGANS)
def test_biggan_gives_the_same_image(case: str, tmp_path: Path) -> None:
    kind, make, plain = BIGGANS[case]
    state = make()
    decoder = load_decoder(convert(saved(tmp_path / "G.pth", state), kind, tmp_path / "out"))
    z = drawn(decoder)
    torch.testing.assert_close(decoder({"z": z}, LABEL), plain(state, z, LABEL), rtol=0, atol=1e-4)
    assert "weight_orig" not in str(list(decoder.state_dict()))


def test_truncation_of_a_pretrained_biggan(tmp_path: Path) -> None:
    state = foreign.pretrained_biggan()
    path = saved(tmp_path / "pytorch_model.bin", state)
    decoder = load_decoder(convert(path, "pytorch-pretrained-biggan", tmp_path / "out", truncation=0.5))
    z = drawn(decoder)
    assert float(z.abs().max()) <= 1
    want = biggan_plain.pretrained(state, z, LABEL, entries=3, index=2)
    torch.testing.assert_close(decoder({"z": z}, LABEL), want, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match=r"truncation = 1.5: give a number above 0 and up to 1 \(--truncation\)"):
        convert(path, "pytorch-pretrained-biggan", tmp_path / "out", truncation=1.5)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_stylegan2_pickle_gives_the_same_image(num_classes: int, tmp_path: Path) -> None:
    state = foreign.stylegan2(num_classes=num_classes, widths=(6, 4, 4))
    path = foreign.persistent_pickle(tmp_path / "net.pkl", state, ATTRIBUTES)
    decoder = load_decoder(convert(path, "stylegan2", tmp_path / "out", truncation=0.7))
    assert decoder.config.num_classes == num_classes
    assert tuple(decoder.image_shape) == (3, 16, 16)
    z = drawn(decoder)
    labels = LABEL.tolist() if num_classes else [None] * 3
    settings = {"rate": 0.02, "psi": 0.7, "clamp": 2.0}
    want = torch.stack(
        [stylegan2_plain.image(state, row, label, **settings) for row, label in zip(z, labels, strict=True)]
    )
    torch.testing.assert_close(decoder({"z": z}, LABEL), want, rtol=0, atol=1e-4)


def test_stylegan2_state_dictionary(tmp_path: Path) -> None:
    state = foreign.stylegan2()
    decoder = load_decoder(
        convert(saved(tmp_path / "G.pt", {"G_ema": state}), "stylegan2", tmp_path / "out", space="w+")
    )
    assert decoder.latent_shapes == {"w": (4, 5)}
    z = torch.randn(4, generator=stream(0, "z"))
    want = stylegan2_plain.image(state, z, 1, rate=0.01)
    got = decoder.in_space("z")({"z": z[None]}, torch.tensor([1]))[0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_noise_that_was_never_trained(tmp_path: Path) -> None:
    state = {name: value for name, value in foreign.stylegan2().items() if "noise" not in name}
    decoder = load_decoder(convert(saved(tmp_path / "G.pt", state), "stylegan2", tmp_path / "out"))
    assert all(float(layer.strength) == 0 for layer in decoder.layers)


NESTINGS: dict[str, Callable[[foreign.State], Any]] = {
    "studio checkpoint": lambda s: {"state_dict": s, "optimizer": {}, "best_fid": numpy.float64(7.5), "step": 3},
    "model_state_dict": lambda s: {"model_state_dict": s, "global_step": 3},
    "averaged beside the other": lambda s: {
        "G": {"wrong": torch.ones(1)},
        "G_ema": {"module." + k: v for k, v in s.items()},
    },
    "data parallel": lambda s: {"module." + key: value for key, value in s.items()},
    "half precision": lambda s: {key: value.double() for key, value in s.items()},
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_nesting_and_prefixes(nesting: str, tmp_path: Path) -> None:
    state = foreign.studiogan(style="parametrised" if nesting == "data parallel" else "torch")
    decoder = load_decoder(convert(saved(tmp_path / "m.pth", NESTINGS[nesting](state)), "studiogan", tmp_path / "out"))
    plain = load_decoder(convert(saved(tmp_path / "p.pth", foreign.studiogan()), "studiogan", tmp_path / "plain"))
    z = {"z": drawn(plain)}
    torch.testing.assert_close(decoder(z, LABEL), plain(z, LABEL))


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in foreign.biggan_pytorch().items()}, tmp_path / "G.safetensors")
    assert convert(tmp_path / "G.safetensors", "biggan-pytorch", tmp_path / "out").is_dir()


def test_the_folder_says_where_it_comes_from(tmp_path: Path) -> None:
    path = saved(tmp_path / "G.pth", foreign.biggan_pytorch())
    folder = convert(path, "biggan-pytorch", tmp_path / "out")
    card = json.loads((folder / "card.json").read_text())
    assert card["layout"] == UNSEEN
    assert card["source"]["file"] == "G.pth"
    assert len(card["source"]["sha256"]) == 64
    assert card["sha256"].keys() == {"config.json", "diffusion_pytorch_model.safetensors", "README.md"}
    assert UNSEEN in (folder / "README.md").read_text()
    assert convert(path, "biggan-pytorch", tmp_path / "out") == folder
    assert not list(tmp_path.glob(".out*"))


def test_refuses_what_would_run_code(tmp_path: Path) -> None:
    path = saved(tmp_path / "G.pth", {"state_dict": foreign.studiogan(), "args": argparse.Namespace(lr=1)})
    with pytest.raises(InputError, match=r"not unpickled, because it names argparse.Namespace: .* would run code"):
        convert(path, "studiogan", tmp_path / "out")
    assert not (tmp_path / "out").exists()


REFUSALS: dict[str, tuple[str, Any, str]] = {
    "another layout": (
        "studiogan",
        foreign.biggan_pytorch(),
        r"not the studiogan layout: expected blocks.0.0.* found bl",
    ),
    "left over": (
        "biggan-pytorch",
        {**foreign.biggan_pytorch(), "extra.weight": torch.ones(1)},
        "extra.weight would be left over, so the image would be another",
    ),
    "no tensors": ("studiogan", {"epoch": 3, "who": "me"}, r"no state dictionary. Found: epoch, who. Expected: names"),
    "a number": ("studiogan", 3, "no state dictionary. Found: int. Expected"),
    "unfit shapes": (
        "studiogan",
        {**foreign.studiogan(), "conv2d5.bias": torch.ones(5)},
        "weights do not fit together as a BigGanDecoder: .*out.bias",
    ),
    "not finite": (
        "studiogan",
        {**foreign.studiogan(), "conv2d5.bias": torch.full((3,), torch.nan)},
        "images that are not finite; is the file whole",
    ),
    "residual": (
        "stylegan2",
        {**foreign.stylegan2(), "synthesis.b8.skip.weight": torch.ones(1)},
        r"residual shortcuts \(synthesis.b8.skip.weight\); only skip outputs",
    ),
    "another filter": (
        "stylegan2",
        {**foreign.stylegan2(), "synthesis.b8.resample_filter": torch.ones(4, 4) / 16},
        "synthesis.b8.resample_filter is another low-pass filter",
    ),
    "another generation": (
        "stylegan2",
        {"synthesis.L0_36_512.weight": torch.ones(1)},
        "expected mapping.fc0.weight; found syn",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_with_the_reason(case: str, tmp_path: Path) -> None:
    kind, content, said = REFUSALS[case]
    with pytest.raises(InputError, match=said):
        convert(saved(tmp_path / "G.pth", content), kind, tmp_path / "out")


def test_refuses_files_and_places(tmp_path: Path) -> None:
    path = saved(tmp_path / "G.pth", foreign.biggan_pytorch())
    with pytest.raises(InputError, match=r'--kind "bigan-pytorch": no such layout. Did you mean "biggan-pytorch"'):
        convert(path, "bigan-pytorch", tmp_path / "out")
    for kind in ("studiogan", "stylegan2"):
        with pytest.raises(InputError, match=r"none.pth: no such file"):
            convert(tmp_path / "none.pth", kind, tmp_path / "out")
    with pytest.raises(InputError, match="exists and holds no converted decoder"):
        convert(path, "biggan-pytorch", tmp_path)
    with pytest.raises(InputError, match='space "w": this generator has z and f0 to f1'):
        convert(path, "biggan-pytorch", tmp_path / "out", space="w")
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"torn.safetensors: not a readable safetensors file"):
        convert(tmp_path / "torn.safetensors", "biggan-pytorch", tmp_path / "out")
    (tmp_path / "torn.pth").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"torn.pth: no readable checkpoint"):
        convert(tmp_path / "torn.pth", "biggan-pytorch", tmp_path / "out")
    for text in (b"hello\n", b"text", b"name-1\n", b"\x80\x02garbage"):
        (tmp_path / "text.pth").write_bytes(text)
        with pytest.raises(BundleError, match=r"text.pth: no (readable )?checkpoint"):
            convert(tmp_path / "text.pth", "biggan-pytorch", tmp_path / "out")


def test_only_an_earlier_conversion_gives_way_and_what_lies_beside_it_stays(tmp_path: Path) -> None:
    path, project = saved(tmp_path / "G.pth", foreign.biggan_pytorch()), tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text('{"port": 80}')
    (project / "card.json").write_text('{"port": 80}')
    (project / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="project: exists and holds no converted decoder"):
        convert(path, "biggan-pytorch", project)
    assert sorted(each.name for each in project.iterdir()) == ["card.json", "config.json", "thesis.txt"]
    out = convert(path, "biggan-pytorch", tmp_path / "out")
    (out / "thesis.txt").write_text("mine")
    (out / "config.json").write_text("damaged")
    convert(path, "biggan-pytorch", out)
    assert (out / "thesis.txt").read_text() == "mine"
    load_decoder(out)


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "G.pth", foreign.biggan_pytorch())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(path, "biggan-pytorch", ".")
    load_decoder(tmp_path / "here")


class Ring:
    """A module that holds itself twice."""

    def __init__(self) -> None:
        self._modules = {"a": self, "b": self}


def test_modules_that_hold_themselves_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "ring.pkl").write_bytes(pickle.dumps({"G_ema": Ring()}))
    with pytest.raises(InputError, match="more than 10,000 modules, or names longer than 1,000 letters"):
        convert(tmp_path / "ring.pkl", "stylegan2", tmp_path / "out")


def test_command(tmp_path: Path) -> None:
    path = foreign.persistent_pickle(tmp_path / "net.pkl", foreign.stylegan2(), ATTRIBUTES)
    command = ["convert", str(path), "--kind", "stylegan2", "--space", "f2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "decoder written to" in done.stdout
    shown = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert shown["card"]["latents"] == {"f": [4, 8, 8], "skip": [3, 4, 4], "w": [2, 5]}
    failed = CliRunner().invoke(app, [*command[:2], "--kind", "studiogan", "--out", str(tmp_path / "other")])
    assert failed.exit_code == 2
    assert failed.stderr.startswith("latentdc: error: ")
