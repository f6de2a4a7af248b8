"""The condensation pipeline: what it leaves, what it refuses, and that an interruption changes nothing."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentdc.bundle import load_bundle
from latentdc.condense import Step
from latentdc.data.store import ClassStore
from latentdc.errors import BundleError, InputError, RecipeError
from latentdc.initialise.bundled import Bundled
from latentdc.pipelines.condensation import CondensationOutput, CondensationPipeline
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.recipe import parse_recipe
from latentdc.sketch import Sketch

SMALL = ("source.width=8", "source.num_pairs=2")


@pytest.fixture
def condense(tiny_store: ClassStore) -> Callable[..., CondensationOutput]:
    pipe = CondensationPipeline("pixels", device="cpu")
    pipe.set_progress_bar_config(disable=True)

    def run(out: Path, recipe: str = "dm-gan", **given: object) -> CondensationOutput:
        return pipe(tiny_store, recipe, out=out, **({"settings": SMALL, "steps": 4} | given))

    return run


def latents(output: CondensationOutput) -> torch.Tensor:
    return output.bundle.bank.latents()["x"]


@pytest.mark.parametrize("recipe", ["dm", "dm-gan", "m3d"])
def test_every_recipe_makes_a_bundle(condense: Callable[..., CondensationOutput], tmp_path: Path, recipe: str) -> None:
    out = condense(tmp_path / "run", recipe, steps=2)
    assert out.path == tmp_path / "run"
    assert out["recipe"].name == recipe
    assert out.loss == pytest.approx(out.bundle.provenance["loss"])
    assert (out.path / "grid.png").exists()
    assert out.bundle.provenance["data"] == "tiny"
    assert out.bundle.storage.raw_set == 36 * 64 + 36


def test_rows_are_put_in_order_unless_their_order_was_learned(
    condense: Callable[..., CondensationOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mdc` learns which row comes first; another order would give its prefixes up."""
    ordered: list[torch.Tensor] = []

    def backwards(decoder: object, bank: LatentBank, *_: object, **__: object) -> LatentBank:
        ordered.append(bank.latents()["x"].detach().clone())
        return LatentBank.of({"x": ordered[-1].flip(0)}, bank.counts)

    monkeypatch.setattr("latentdc.pipelines.run.order_rows", backwards)
    settings = ("source.width=4", "source.num_per_class=5")
    plain = condense(tmp_path / "plain", "dm", settings=settings, images_per_class=2, steps=1)
    assert torch.equal(latents(plain), ordered[0].flip(0))
    condense(tmp_path / "nested", "mdc", settings=settings, images_per_class=2, steps=1)
    assert len(ordered) == 1


def test_equal_seeds_equal_latents(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    first, again = condense(tmp_path / "a"), condense(tmp_path / "b")
    assert torch.equal(latents(first), latents(again))
    assert not torch.equal(latents(first), latents(condense(tmp_path / "c", seed=1)))


def test_a_start_from_a_bundle_is_known_by_its_rows_wherever_it_lies(
    condense: Callable[..., CondensationOutput], tmp_path: Path
) -> None:
    def second(place: str, steps: int = 2) -> CondensationOutput:
        settings = (*SMALL, "init.kind=bundle", f"init.path={tmp_path / place}")
        return condense(tmp_path / "second", steps=steps, settings=settings)

    first = condense(tmp_path / "first")
    made = second("first")
    assert made.bundle.provenance["start"] == {
        "kind": "bundle",
        "rows_sha256": Bundled(str(tmp_path / "first")).identity()["path"],
        "recipe": "dm-gan",
        "steps": 4,
        "seconds": first.bundle.provenance["seconds"],
    }
    with pytest.raises(InputError, match="a bundle cannot be written over the one it starts from"):
        condense(tmp_path / "first", settings=(*SMALL, "init.kind=bundle", f"init.path={tmp_path / 'first'}"))
    shutil.rmtree(tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "moved")
    assert torch.equal(latents(second("moved")), latents(made)), "taken up from its checkpoint"
    shutil.rmtree(tmp_path / "second")
    condense(tmp_path / "first", seed=1, resume=False)
    with pytest.raises(InputError, match=r"checkpoint of another run: init\.options\.path"):
        second("first")


@pytest.mark.parametrize("recipe", ["dm", "dm-gan"])
def test_interrupted_and_taken_up_again_is_the_straight_run(
    condense: Callable[..., CondensationOutput], tmp_path: Path, recipe: str
) -> None:
    def interrupt(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        condense(tmp_path / "halves", recipe, on_step=[interrupt])
    assert not (tmp_path / "halves").exists(), "a bundle appears whole or not at all"
    halves = condense(tmp_path / "halves", recipe)
    assert torch.equal(latents(halves), latents(condense(tmp_path / "straight", recipe)))
    log = (tmp_path / "halves.run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]


def test_a_start_from_real_images_is_reported(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    changes = {"overrides": {"init": {"kind": "inversion", "steps": 2}}}
    start = condense(tmp_path / "run", "dm", steps=2, **changes).bundle.provenance["start"]
    assert start["kind"] == "inversion"
    assert start["num_rows"] == 3
    assert 0 <= start["reconstruction_mse"] < 1e-8 < start["mse_after"]
    assert (tmp_path / "run.run" / start["picture"]).is_file()
    assert condense(tmp_path / "prior", "dm-gan", steps=1).bundle.provenance["start"] == {"kind": "prior"}


def test_another_run_is_not_taken_up(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    condense(tmp_path / "run")
    with pytest.raises(InputError, match="seed"):
        condense(tmp_path / "run", seed=1)
    assert condense(tmp_path / "run", seed=1, resume=False).recipe.seed == 1


def test_one_sketch_serves_several_runs(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    first = condense(tmp_path / "run")
    (file,) = (tmp_path / "run.run").glob("sketch-*.safetensors")
    written = file.stat().st_mtime_ns
    given = condense(tmp_path / "given", sketch=file, images_per_class=3, storage="int8")
    assert given.bundle.provenance["sketch"] == first.bundle.provenance["sketch"] == Sketch.load(file).manifest.digest()
    assert not list((tmp_path / "given.run").glob("sketch-*"))
    assert given.bundle.bank.storage == "int8"
    assert given.bundle.bank.counts == (3, 3, 3)
    condense(tmp_path / "run", steps=6, resume=False)
    assert file.stat().st_mtime_ns == written, "the run's own sketch is found again"


def test_a_given_sketch_is_the_source_that_is_recorded(
    condense: Callable[..., CondensationOutput], tmp_path: Path
) -> None:
    condense(tmp_path / "run")
    (file,) = (tmp_path / "run.run").glob("sketch-*.safetensors")
    given = condense(tmp_path / "given", "dm", sketch=file, settings=())
    recorded = parse_recipe(tomllib.loads(given.bundle.provenance["recipe_toml"])).source
    assert (recorded.kind, recorded.num_pairs, recorded.width) == ("sketch", 2, 8)
    with pytest.raises(InputError, match=r"source\.num_pairs = 50, the sketch's is 2"):
        condense(tmp_path / "other", sketch=file, overrides={"source.num_pairs": 50})


def test_a_start_the_decoder_does_not_have_is_refused_before_the_sketch(
    condense: Callable[..., CondensationOutput], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="class-mean"):
        condense(tmp_path / "run", overrides={"init": "class-mean"})
    assert not list((tmp_path / "run.run").glob("sketch-*"))


def test_loss_and_seconds_are_of_the_whole_run(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    first = condense(tmp_path / "run").bundle.provenance
    again = condense(tmp_path / "run").bundle.provenance
    assert again["loss"] == first["loss"] is not None
    assert again["seconds"] == first["seconds"] > 0


def test_the_picture_is_checked_as_every_file(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    picture = condense(tmp_path / "run").path / "grid.png"
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 1
    picture.write_bytes(content)
    with pytest.raises(BundleError, match=r"grid\.png is damaged"):
        load_bundle(tmp_path / "run")


def test_budget_in_bytes(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    out = condense(tmp_path / "run", bytes_per_class=600)
    assert out.bundle.bank.counts == (2, 2, 2)
    assert out.bundle.storage.bytes_per_class <= 600
    with pytest.raises(RecipeError, match="bytes_per_class"):
        condense(tmp_path / "less", bytes_per_class=100)


def test_a_decoder_module_of_ones_own(tiny_store: ClassStore, tmp_path: Path) -> None:
    spec = tiny_store.spec
    decoder = PixelsDecoder([1, 8, 8], list(spec.mean), list(spec.std))
    pipe = CondensationPipeline(decoder, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    out = pipe(tiny_store, "dm", steps=1, settings=SMALL, out=tmp_path / "run")
    assert isinstance(out.bundle.decoder, PixelsDecoder)


@pytest.mark.parametrize("name", ["pixel", "./nowhere/at/all"])
def test_unknown_decoders_are_named(name: str) -> None:
    with pytest.raises(InputError, match="decoder"):
        CondensationPipeline.from_pretrained(name)


def test_dtype_is_the_arithmetic_of_the_run(tiny_store: ClassStore) -> None:
    pipe = CondensationPipeline.from_pretrained("pixels", dtype=torch.bfloat16)
    _, built = pipe.prepare(tiny_store, "dm")
    assert built.recipe.precision == "bf16"
    with pytest.raises(InputError, match="float16"):
        CondensationPipeline.from_pretrained("pixels", dtype=torch.float16)


def test_a_file_in_the_way_is_left_alone(condense: Callable[..., CondensationOutput], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        condense(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"
