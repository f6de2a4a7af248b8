"""d4m, mgd3 and d3hr from the recipe to the images: nothing is optimised, and what is stored is the start."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli_run import write
from tiny_models import tiny_diffusion
from tiny_parts import tiny_decoder
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.data.store import ClassStore
from latentdc.decoders.diffusion import DiffusionDecoder
from latentdc.errors import InputError, RecipeError
from latentdc.evaluate.baselines import BASELINES, candidates
from latentdc.evaluate.sets import subject_of
from latentdc.initialise import initialise
from latentdc.initialise.distribution import Statistics
from latentdc.initialise.latent_space import by_size, by_weight
from latentdc.initialise.prototypes import Modes, Prototypes
from latentdc.latents import decode
from latentdc.pipelines import run as run_file
from latentdc.pipelines.condensation import CondensationOutput, CondensationPipeline
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline
from latentdc.portable.distribution import DistributionBank
from latentdc.portable.tiles import TilesFormation
from latentdc.recipe import cite, parse_recipe
from latentdc.seeding import global_seed, stream

NAMES = ("d4m", "mgd3", "d3hr")
TINY = ("images_per_class=2", "storage=fp32")


def model(**settings: Any) -> DiffusionDecoder:
    with global_seed(0, "without-steps"):
        return tiny_diffusion(steps=10, classes=4, null_class=3, **settings).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A setting that names a diffusion model and leaves the recipe's settings of it what they are."""
    folder = tmp_path_factory.mktemp("trained")
    model().save_pretrained(folder)
    return f"decoder.kind={folder}"


def made(store: ClassStore, out: Path, recipe: str, *settings: str, **given: Any) -> CondensationOutput:
    pipe = CondensationPipeline(given.pop("decoder", None), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe(store, recipe, out=out, settings=(*TINY, *settings), **given)


@pytest.mark.parametrize("recipe", NAMES)
def test_from_recipe_to_bundle(
    recipe: str, trained: str, tiny_store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("no step is taken: no sketch, no mini-batch, no loop, no network that orders rows")

    for name in ("make_source", "condense", "order_rows", "Checkpoints"):
        monkeypatch.setattr(run_file, name, never)
    first, again = (made(tiny_store, tmp_path / name, recipe, trained) for name in ("a", "b"))
    bundle = first.bundle
    assert (bundle.provenance["steps"], bundle.provenance["loss"], bundle.provenance["sketch"]) == (0, None, None)
    assert math.isnan(first.loss)
    assert (bundle.bank.counts, bundle.bank.storage) == ((2, 2, 2), "fp32")
    assert bundle.decoder.config.start == {"d4m": 0.7, "mgd3": 0.5, "d3hr": 0.62}[recipe]
    assert bundle.decoder.guidance == 2.0
    assert (first.path / "grid.png").is_file()
    shown = [decode(each.bundle.decoder, each.bundle.bank).x for each in (first, again)]
    assert torch.equal(*shown)
    other = made(tiny_store, tmp_path / "c", recipe, trained, "seed=1").bundle
    assert not torch.equal(shown[0], decode(other.decoder, other.bank).x)


def test_prototypes_are_centres_under_the_levels_noise(tiny_store: ClassStore) -> None:
    decoder = model(start=0.7)
    bank = initialise("prototypes", decoder, (2, 0, 3), seed=5, store=tiny_store)
    assert bank.num_rows == 5
    points = decoder.clean(tiny_store.of_class(2).float() / 255).flatten(1)
    centres = by_size(points, 3, stream(5, "init-prototypes", index=2)).view(3, 1, 8, 8)
    wanted = decoder.noised(centres, torch.tensor([2, 2, 2]), stream(5, "prototypes", index=2))["z"]
    torch.testing.assert_close(bank.z["z"][2:], wanted)
    other = initialise(Prototypes("mixture"), decoder, (2, 0, 3), seed=5, store=tiny_store)
    assert not torch.equal(other.z["z"], bank.z["z"])


def test_modes_guide_noise_to_the_means_of_a_mixture(tiny_store: ClassStore) -> None:
    decoder = model(start=0.5, learn_condition=True)
    bank = initialise(Modes(strength=0.2), decoder, (0, 2, 0), seed=5, store=tiny_store)
    points = decoder.clean(tiny_store.of_class(1).float() / 255).flatten(1)
    means = by_weight(points, 2, stream(5, "init-modes", index=1)).view(2, 1, 8, 8)
    wanted = decoder.towards(means, torch.tensor([1, 1]), stream(5, "modes", index=1), 0.2)
    torch.testing.assert_close(bank.latents(), wanted)


def test_statistics_are_those_of_inverted_latents(trained: str, tiny_store: ClassStore, tmp_path: Path) -> None:
    out = made(tiny_store, tmp_path / "set", "d3hr", trained, "init.tries=3")
    bank, decoder = out.bundle.bank, out.bundle.decoder
    assert isinstance(bank, DistributionBank)
    latents = decoder.encode(tiny_store.of_class(2).float() / 255, torch.full((12,), 2))["z"]
    torch.testing.assert_close(bank.mean.z[2], latents.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bank.std.z[2], latents.std(0, unbiased=False), rtol=1e-4, atol=1e-4)
    assert out.bundle.storage.bytes_per_class == 2 * (64 * 4 + 4)
    facts = CondensationPipeline(device="cpu").estimate(tiny_store, "d3hr", settings=(*TINY, trained))
    assert facts["bytes_per_class"] == out.bundle.storage.bytes_per_class
    assert (facts["total_seconds"], facts["sketch_bytes"], facts["checkpoint_bytes"]) == (0, 0, 0)
    half = made(tiny_store, tmp_path / "half", "d3hr", trained, "storage=fp16").bundle
    assert half.storage.bytes_per_class == 2 * (64 * 2 + 4)


def test_statistics_of_an_autoencoder(tiny_store: ClassStore, tmp_path: Path) -> None:
    out = made(tiny_store, tmp_path / "set", "d3hr", decoder=tiny_decoder("autoencoder"))
    assert out.bundle.bank.shapes == {"z": (2, 4, 4)}
    assert len(DatasetSynthesisPipeline.from_pretrained(out.path)(7, output_type="pt").images) == 21


def test_any_number_of_images_is_evaluated_with_its_baselines(tiny_store: ClassStore, tmp_path: Path) -> None:
    path = made(tiny_store, tmp_path / "set", "d3hr", decoder="pixels").path
    few, many = subject_of(path, tiny_store), subject_of(path, tiny_store, images_per_class=9)
    assert (few.images.counts, many.images.counts) == ((2, 2, 2), (9, 9, 9))
    assert torch.equal(many.images.x[9:11], few.images.x[2:4])
    assert few.bytes_per_class == many.bytes_per_class
    assert many.bundle is not None
    assert many.bundle.bank.counts == (9, 9, 9)
    rows = {row.name: row.bytes_per_class for row in candidates(many, tiny_store, BASELINES, width=4)[0]}
    assert rows["bundle"] == 2 * (64 * 4 + 4)
    assert rows["undistilled"] == rows["encoded"] == 9 * 64 * 4 + 4, "nine latents, not a mean and a deviation"
    with pytest.raises(InputError, match=r"images_per_class = 0 .*: give a multiple of 1, at least that"):
        subject_of(path, tiny_store, images_per_class=0)


def test_settings_that_another_decoder_goes_without_are_told(
    tiny_store: ClassStore, caplog: pytest.LogCaptureFixture
) -> None:
    CondensationPipeline("pixels", device="cpu").prepare(tiny_store, "d3hr")
    assert "reads its decoder with start = 0.62, guidance = 2.0, and the one given" in caplog.text
    caplog.clear()
    CondensationPipeline("pixels", device="cpu").prepare(tiny_store, "dm-gan")
    assert not caplog.text


def test_any_recipe_may_keep_its_start(tiny_store: ClassStore, tmp_path: Path) -> None:
    out = made(tiny_store, tmp_path / "set", "dm", "steps=0")
    start = initialise("real", out.bundle.decoder, (2, 2, 2), seed=0, store=tiny_store)
    assert torch.equal(out.bundle.bank.latents()["x"], start.latents()["x"])
    assert out.bundle.provenance["start"]["mse_after"] == out.bundle.provenance["start"]["reconstruction_mse"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="latentdc")
    assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
    return result.stdout


def test_from_the_command_line(trained: str, make_store: Any, tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("test", 1)):
        write(make_store(6, seed=seed), tmp_path / "data" / split)
    out = tmp_path / "set"
    data = ("--data", tmp_path / "data")
    told = run("condense", *data, "--recipe", "d3hr", "--set", trained, "--out", out)
    assert "bundle written to" in told
    assert not list((tmp_path / "set.run").glob("*.safetensors"))
    facts = json.loads(run("inspect", out, "--json"))
    assert facts["storage"]["bytes_per_class"] == 2 * (64 * 2 + 4)
    printed = json.loads(run("decode", out, "--out", tmp_path / "images", "--images-per-class", 12, "--json"))
    assert printed["num_images"] == 36
    quick = ("--protocol", "quick", "--seeds", 1, "--width", 4, "--students", "mlp", "--baselines", "undistilled")
    report = json.loads(run("evaluate", out, *data, *quick, "--images-per-class", 12, "--json"))
    assert {row["images_per_class"] for row in report["rows"]} == {12}


def test_credit_is_of_what_is_used() -> None:
    for recipe, key in (("d4m", "su2024d4m"), ("mgd3", "chansantiago2025mgd3"), ("d3hr", "zhao2025d3hr")):
        found = run("cite", recipe)
        assert key in found
        assert "song2021ddim" in found
        assert not any(other in found for other in ("kingma2015adam", "zhao2023dm", "zhao2021dsa"))
    assert "kingma2015adam" in cite(parse_recipe({"images_per_class": 1}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"init": "statistics", "steps": 5}, 'init = "statistics", steps = 5: a distribution is fitted, not optimised'),
        (
            {"init": "statistics", "steps": 0, "storage": "int8"},
            'init = "statistics", storage = "int8": a distribution is stored as fp16 or fp32',
        ),
        (
            {"init": "statistics", "steps": 0, "images_per_class": None, "bytes_per_class": 9},
            "bytes_per_class = 9: a distribution takes the same bytes for any number of images; give images_per_class",
        ),
        ({"init": {"kind": "statistics", "tries": 0}, "steps": 0}, "tries = 0: give at least 1"),
        ({"init": {"kind": "prototypes", "centres": "kmeans"}}, 'centres = "kmeans": .*Did you mean "k-means"'),
        ({"init": {"kind": "modes", "strength": -1.0}}, "strength = -1.0: give 0 or more"),
    ],
)
def test_refused_recipes(table: dict[str, Any], message: str) -> None:
    whole = {"images_per_class": 1} | table
    with pytest.raises(RecipeError, match=message):
        parse_recipe({name: value for name, value in whole.items() if value is not None})


def test_refused_starts(tiny_store: ClassStore, tmp_path: Path) -> None:
    gan = tiny_decoder("gan")
    for kind in ("prototypes", "modes"):
        with pytest.raises(InputError, match=f'init = "{kind}" puts clean latents under noise, which GanDecoder knows'):
            initialise(kind, gan, (1, 1, 1), seed=0, store=tiny_store)
        with pytest.raises(InputError, match=f"13 {kind} of a class with 12 images"):
            initialise(kind, model(start=0.5), (13, 1, 1), seed=0, store=tiny_store)
        with pytest.raises(InputError, match=f'init = "{kind}" needs real images'):
            initialise(kind, model(start=0.5), (1, 1, 1), seed=0)
    for kind, told in (("prototypes", "nothing is left of a clean latent"), ("modes", "modes guide the steps of DDIM")):
        with pytest.raises(InputError, match=f'init = "{kind}": .*start = 1.0: {told}.* start below 1'):
            initialise(kind, model(), (1, 1, 1), seed=0, store=tiny_store)
    with pytest.raises(InputError, match="TilesFormation packs 4 images into one"):
        initialise("statistics", model(), (1, 1, 1), seed=0, store=tiny_store, formation=TilesFormation(2))
    with pytest.raises(InputError, match=r"counts = \[1, 0, 1\]: a distribution needs at least 1 row of each class"):
        initialise(Statistics(), model(), (1, 0, 1), seed=0, store=tiny_store)
    sizes = ("source.num_pairs=1", "source.width=4", "steps=1")
    made(tiny_store, tmp_path / "a", "dm-gan", *sizes, decoder="pixels")
    sketch = next((tmp_path / "a.run").glob("sketch-*.safetensors"))
    with pytest.raises(InputError, match="steps = 0 keeps the start as it is, so no sketch is looked at"):
        made(tiny_store, tmp_path / "b", "dm-gan", "steps=0", decoder="pixels", sketch=sketch)
