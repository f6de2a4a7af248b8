"""The commands one after another on a tiny folder of images: what each leaves, the next can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.data.store import ClassStore

SMALL = ("--set", "source.width=8", "--steps", 3)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="latentdc")
    assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
    return result.stdout


class Workplace(NamedTuple):
    data: Path
    sketch: Path
    bundle: Path
    printed: dict


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_store) -> Workplace:
    root = tmp_path_factory.mktemp("cli")
    for split, seed in (("train", 0), ("test", 1)):
        write(make_store(10, seed=seed), root / "data" / split)
    sketch, bundle = root / "data.safetensors", root / "bundle"
    taken = json.loads(run("sketch", "--data", root / "data", "--num-pairs", 2, *SMALL[:2], "--out", sketch, "--json"))
    assert taken["num_pairs"] == 2
    assert taken["images"] == [10, 10, 10]
    budget = ("--images-per-class", 2, "--storage", "int8", "--decoder", "pixels")
    printed = run("condense", "--data", root / "data", "--sketch", sketch, *budget, *SMALL, "--out", bundle, "--json")
    return Workplace(root / "data", sketch, bundle, json.loads(printed))


def write(store: ClassStore, folder: Path) -> None:
    for image, label in zip(store.images, store.labels.tolist(), strict=True):
        path = folder / f"class-{label}" / f"{len(list(folder.rglob('*.png'))):03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)


def test_condense_leaves_bundle_picture_and_log(place: Workplace) -> None:
    assert place.printed["storage"]["bytes_per_class"] == 2 * 64 + 4 + 4
    assert place.printed["recipe"]["storage"] == "int8"
    with Image.open(place.bundle / "grid.png") as picture:
        assert picture.width > 64
    log = (place.bundle.with_name("bundle.run") / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 3


def test_inspect_explains_a_bundle(place: Workplace, tmp_path: Path) -> None:
    facts = json.loads(run("inspect", place.bundle, "--json", "--grid", tmp_path / "grid.png"))
    assert facts["kind"] == "bundle"
    assert facts["rows_per_class"] == [2, 2, 2]
    assert facts["provenance"]["seed"] == 0
    assert (tmp_path / "grid.png").exists()
    text = run("inspect", place.bundle)
    assert all(line in text for line in ("latents", "+ labels", "+ private decoder", "+ public decoder"))


def test_inspect_explains_a_sketch(place: Workplace) -> None:
    facts = json.loads(run("inspect", place.sketch, "--json"))
    assert facts["kind"] == "sketch"
    assert facts["counts"] == [10, 10, 10]
    assert "bytes" in run("inspect", place.sketch)


@pytest.mark.parametrize("form", ["folder", "pt", "webdataset"])
def test_decode_writes_the_images(place: Workplace, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"images-{form}"
    facts = json.loads(run("decode", place.bundle, "--out", out, "--format", form, "--images-per-class", 1, "--json"))
    assert facts["num_images"] == 3
    if form == "folder":
        assert sorted(path.parent.name for path in out.rglob("*.png")) == ["class-0", "class-1", "class-2"]
    elif form == "webdataset":
        assert sorted(path.name for path in out.iterdir()) == ["classes.json", "images-000000.tar"]
    else:
        assert torch.load(out, weights_only=True)["images"].shape == (3, 1, 8, 8)


def test_decode_of_some_classes(place: Workplace, tmp_path: Path) -> None:
    run("decode", place.bundle, "--out", tmp_path / "some", "--classes", "class-2,0")
    assert sorted(path.name for path in (tmp_path / "some").iterdir() if path.is_dir()) == ["class-0", "class-2"]


def test_evaluate_prints_the_agreed_object(place: Workplace, tmp_path: Path) -> None:
    cheap = ("--protocol", "quick", "--seeds", 1, "--width", 4, "--baselines", "random-real")
    found = json.loads(run("evaluate", place.bundle, "--data", place.data, *cheap, "--out", tmp_path, "--json"))
    assert (found["protocol"], found["num_classes"]) == ("quick", 3)
    assert [row["name"] for row in found["rows"]][:2] == ["bundle", "random-real"]
    wanted = {"name", "images_per_class", "bytes_per_class", "accuracy_mean", "accuracy_std", "num_runs"}
    assert all(wanted <= row.keys() for row in found["rows"])
    assert (tmp_path / "grid.png").exists()
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["rows"][0]["accuracy_mean"] == found["rows"][0]["accuracy_mean"]


def test_requantise_says_what_is_saved(place: Workplace, tmp_path: Path) -> None:
    small = tmp_path / "small"
    told = json.loads(run("requantise", place.bundle, "--storage", "int4", "--out", small, "--json"))
    assert (told["before"]["stored_as"], told["stored_as"]) == ("int8", "int4")
    assert told["storage"]["latents"] == (told["before"]["storage"]["latents"] + 1) // 2
    assert json.loads(run("inspect", small, "--json"))["stored_as"] == "int4"
    assert json.loads(run("inspect", place.bundle, "--json"))["stored_as"] == "int8", "the old one is what it was"
    result = CliRunner().invoke(app, ["requantise", str(place.bundle), "--storage", "fp16", "--out", str(small)])
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert "fp16 in place of int8" in run("requantise", place.bundle, "--storage", "fp16", "--out", tmp_path / "more")


@pytest.mark.parametrize("format", ["pt", "parquet"])
def test_decode_overwrites_nothing(place: Workplace, tmp_path: Path, format: str) -> None:
    (tmp_path / "thesis").write_text("years of work")
    for out in (tmp_path / "thesis", tmp_path):
        told = ["decode", str(place.bundle), "--format", format, "--out", str(out)]
        result = CliRunner().invoke(app, told)
        assert result.exit_code == 2
        assert "exists already. Delete it, or choose another --out." in result.stderr
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_dry_run_writes_nothing(place: Workplace, tmp_path: Path) -> None:
    out = tmp_path / "dry"
    told = (
        "condense",
        "--data",
        place.data,
        "--recipe",
        "dm",
        "--bytes-per-class",
        784,
        *SMALL,
        "--out",
        out,
        "--dry-run",
    )
    facts = json.loads(run(*told, "--json"))
    assert facts["rows_per_class"] == (784 - 4) // (4 * 64)
    assert facts["recipe"]["steps"] == 3
    assert facts["recipe"]["decoder"] == "pixels"
    assert "per class" in run(*told)
    assert not list(tmp_path.iterdir())


def test_fit_gan_makes_a_decoder_to_condense_through(place: Workplace, tmp_path: Path) -> None:
    gan = tmp_path / "gan"
    shape = ("--z-dim", 4, "--channels", "8,4", "--batch-size", 4, "--no-figures", "--also-fits", "mine,yours")
    card = json.loads(run("fit", "gan", "--data", place.data, "--steps", 2, *shape, "--out", gan, "--json"))["card"]
    assert card["num_classes"] == 3
    assert card["also_fits"] == ["mine", "yours"]
    assert json.loads(run("inspect", gan, "--json"))["kind"] == "decoder"
    made = run(
        "condense",
        "--data",
        place.data,
        "--decoder",
        gan,
        "--sketch",
        place.sketch,
        *SMALL,
        "--out",
        tmp_path / "through",
    )
    assert "bundle written" in made
    with Image.open(tmp_path / "through" / "grid.png") as picture:
        assert np.asarray(picture).std() > 0


def test_fit_autoencoder_then_diffusion_over_its_latents(place: Workplace, tmp_path: Path) -> None:
    few = ("--data", place.data, "--steps", 2, "--no-figures", "--batch-size", 4)
    vae, model = tmp_path / "vae", tmp_path / "model"
    said = run("fit", "autoencoder", *few, "--channels", "8,8", "--latent-channels", 2, "--out", vae)
    assert f"--decoder {vae}" in said
    shape = ("--channels", "8", "--num-steps", 2, "--autoencoder", vae)
    card = json.loads(run("fit", "diffusion", *few, *shape, "--out", model, "--json"))["card"]
    assert card["latent_shapes"] == {"z": [2, 4, 4]}
    through = ("condense", "--data", place.data, "--sketch", place.sketch, *SMALL, "--decoder")
    assert "bundle written" in run(*through, model, "--out", tmp_path / "through")


def test_without_a_fitting_decoder_the_ways_out_are_named(place: Workplace, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["condense", "--data", str(place.data), "--out", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "--decoder pixels" in result.stderr
    assert "latentdc fit" in result.stderr
