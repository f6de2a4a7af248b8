"""``latentdc inspect`` over every kind of decoder, of folder and of bundle: what it says is what is there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import foreign_checkpoints as foreign
import pytest
import torch
from PIL import Image
from test_cli_run import run
from test_diffusers_folder import kl, pipeline
from tiny_models import UNET
from tiny_parts import EVERY, SPEC, tiny_bank, tiny_decoder, tiny_formation, write_bundle
from typer.testing import CliRunner

from latentdc.bundle import save_bundle
from latentdc.cli.__main__ import app
from latentdc.cli.inspect import _drawn
from latentdc.convert.run import convert
from latentdc.decoders import DECODERS
from latentdc.decoders.settings import configured
from latentdc.portable.distribution import DistributionBank

OWN = ("--own", "own_generator:Generator")
SAID = {
    "pixels": "standardised images",
    "gan": "class-conditional generator (GAN)",
    "stylegan2": "a StyleGAN2 generator",
    "biggan": "a BigGAN generator",
    "autoencoder": "the decoder half of an autoencoder (",
    "diffusion": "a diffusion model (",
    "module": "a generator of somebody's own (own_generator:Generator)",
    "memory": "a linear memory of bases",
    "frequency": "frequencies that a mask keeps",
}


def model_of(decoder: Any) -> str:
    return next(name for name, kind in DECODERS.items() if kind is type(decoder))


@pytest.mark.parametrize("name", EVERY)
def test_every_decoders_folder(name: str, tmp_path: Path) -> None:
    decoder = tiny_decoder(name)
    decoder.save_pretrained(tmp_path / "d")
    own = OWN if name == "module" else ()
    facts = json.loads(run("inspect", tmp_path / "d", "--json", "--grid", tmp_path / "g.png", "--per-class", 2, *own))
    model = model_of(decoder)
    assert (facts["kind"], facts["model"], facts["class"]) == ("decoder", model, type(decoder).__name__)
    assert SAID[model] in facts["what"]
    assert facts["latents"] == {key: list(shape) for key, shape in decoder.latent_shapes.items()}
    current = [space for space in facts["spaces"].values() if space["current"]]
    assert [space["latents"] for space in current] == [facts["latents"]]
    for space in facts["spaces"].values():
        numbers = sum(math.prod(shape) for shape in space["latents"].values())
        assert space["bytes"] == {"fp32": 4 * numbers, "fp16": 2 * numbers, "int8": numbers, "int4": (numbers + 1) // 2}
    assert facts["weight_bytes"] == sum(v.numel() * v.element_size() for v in decoder.state_dict().values())
    assert facts["num_weights"] == sum(v.numel() for v in decoder.parameters())
    assert facts["num_buffers"] == sum(v.numel() for v in decoder.state_dict().values()) - facts["num_weights"]
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.width > 8
    text = run("inspect", tmp_path / "d", *own)
    assert facts["what"] in text
    assert "picture      none yet: write one with --grid FILE" in text
    assert all(f"space {space}" in text for space in facts["spaces"])


@pytest.mark.parametrize(
    ("name", "spaces"),
    [
        ("gan", ["z", "f0", "f1"]),
        ("gan:mapped-w", ["z", "w", "w+", "f0", "f1"]),
        ("stylegan2", ["z", "w", "w+", "f0", "f1", "f2", "f3"]),
        ("biggan", ["z", "f0"]),
        ("diffusion", ["z", "z, c"]),
        ("diffusion-unconditional", ["z"]),
        ("autoencoder", ["z"]),
    ],
)
def test_all_spaces_are_listed(name: str, spaces: list[str], tmp_path: Path) -> None:
    tiny_decoder(name).save_pretrained(tmp_path)
    assert list(json.loads(run("inspect", tmp_path, "--json"))["spaces"]) == spaces


def test_a_diffusion_models_steps_and_guidance(tmp_path: Path) -> None:
    tiny_decoder("diffusion-guided").save_pretrained(tmp_path)
    facts = json.loads(run("inspect", tmp_path, "--json"))
    assert facts["steps"] == 2
    assert facts["settings"] == {"learn_condition": True, "guidance": 3.0, "null_class": 3}
    assert "2 deterministic steps from time 500 to 0, guidance 3" in facts["what"]
    assert "settings     learn_condition = True, guidance = 3.0, null_class = 3" in run("inspect", tmp_path)
    configured(tiny_decoder("diffusion-guided"), {"start": 0.5}).save_pretrained(tmp_path / "late")
    facts = json.loads(run("inspect", tmp_path / "late", "--json"))
    assert facts["steps"] == 1
    assert "the last 1 of 2 deterministic steps from time 0 to 0, guidance 3" in facts["what"]


def test_where_a_folder_came_from(tmp_path: Path) -> None:
    torch.save(foreign.studiogan(), tmp_path / "G.pth")
    folder = convert(tmp_path / "G.pth", "studiogan", tmp_path / "converted")
    assert "converted from G.pth (sha256 " in run("inspect", folder)
    kl().save_pretrained(tmp_path / "kl")
    assert "origin       a folder of diffusers, a AutoencoderKL" in run("inspect", tmp_path / "kl")
    parts = {"unet": diffusers.UNet2DModel(**UNET)}
    folder = pipeline(tmp_path / "ddpm", diffusers.DDIMScheduler(clip_sample=False), **parts)
    text = run("inspect", folder, "--grid", tmp_path / "g.png")
    assert "a diffusion model (UNet2DModel, epsilon) in pixels: 10 deterministic steps" in text
    assert "a folder of diffusers, a SomePipeline" in text
    assert (tmp_path / "g.png").is_file()
    shipped = run("inspect", "fashion-mnist-gan")
    assert "shipped with latentdc as fashion-mnist-gan; trained on 54000 images of fashion-mnist" in shipped
    assert "samples.png" in shipped
    assert "class names  T-shirt/top, Trouser, " in shipped
    assert "recipe       z dim 16, " in shipped
    assert not set("{}[]'") & set(shipped)


@pytest.mark.parametrize("name", EVERY)
def test_a_bundle_of_every_decoder(name: str, tmp_path: Path) -> None:
    decoder = tiny_decoder(name)
    own = OWN if name == "module" else ()
    bank = tiny_bank(decoder).quantise("int8")
    made: dict[str, Any] = {"recipe": "dm", "steps": 3, "start": {"kind": "real", "psnr_db": 12.34}}
    save_bundle(tmp_path / "b", bank=bank, decoder=decoder, spec=SPEC, provenance=made)
    facts = json.loads(run("inspect", tmp_path / "b", "--json", *own))
    assert SAID[model_of(decoder)] in facts["decoder_facts"]["what"]
    assert facts["latents"] == {key: list(shape) for key, shape in decoder.latent_shapes.items()}
    text = run("inspect", tmp_path / "b", "--grid", tmp_path / "g.png", *own)
    numbers = sum(math.prod(shape) for shape in decoder.latent_shapes.values())
    assert f"as int8, {numbers:,} bytes a latent" in text
    assert f"{type(decoder).__name__}: {facts['decoder_facts']['what']}; private to this bundle" in text
    assert "recipe                dm" in text
    assert "start                 real, 12.3 dB from the real images" in text
    assert (tmp_path / "g.png").is_file()


def test_a_start_that_loses_nothing(tmp_path: Path) -> None:
    decoder = tiny_decoder("gan")
    start = {"kind": "real", "psnr_db": None}
    save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={"start": start})
    assert "start                 real, exactly the real images" in run("inspect", tmp_path / "b")


def test_a_grid_of_many_classes_is_drawn_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, seen = tiny_decoder("diffusion"), []
    inner = decoder.denoiser.forward
    monkeypatch.setattr(decoder.denoiser, "forward", lambda x, *a, **k: seen.append(len(x)) or inner(x, *a, **k))
    images, owner, names = _drawn(decoder, {"num_classes": 3}, 70)
    assert (len(images), len(owner), len(names)) == (210, 210, 3)
    assert max(seen) == 64


def test_a_distribution_and_a_formation(tmp_path: Path) -> None:
    decoder = tiny_decoder("gan")
    bank = DistributionBank.of({"z": torch.zeros(3, 4)}, {"z": torch.ones(3, 4)}, [2, 2, 2])
    save_bundle(tmp_path / "b", bank=bank, decoder=decoder, formation=tiny_formation("tiles"), spec=SPEC,
                provenance={"note": "two\nlines"}, decoder_public="me/gan")  # fmt: skip
    text = run("inspect", tmp_path / "b")
    assert "z 4 as fp16, a mean and deviation for each class (48 bytes in all), any number of rows" in text
    assert "formation             TilesFormation" in text
    assert "; me/gan" in text
    assert "lines" not in text


def test_what_it_is_not(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    (tmp_path / "b" / "manifest.json").unlink()
    for path, said in (
        (tmp_path, "is no bundle (no manifest.json), no decoder"),
        (tmp_path / "b", "a bundle of which manifest.json is missing: copy it whole"),
    ):
        failed = CliRunner().invoke(app, ["inspect", str(path)])
        assert failed.exit_code == 2
        assert said in failed.stderr
