"""What a condensation refuses, it refuses at once; what it made, it can tell where it came from."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from tiny_parts import SPEC

from latentdc.bundle import load_bundle
from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.networks import fingerprint
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import parse_recipe

SMALL = ("source.width=8", "source.num_pairs=2")


class Homemade(ModelMixin, ConfigMixin):
    """A decoder whose file imports more than a bundle may carry."""

    latent_shapes, image_shape = {"x": (1, 8, 8)}, (1, 8, 8)

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def prior(self, owner: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(len(owner), *SPEC.image_shape, generator=rng)}

    def forward(self, z: dict[str, torch.Tensor], owner: torch.Tensor) -> torch.Tensor:
        return z["x"] * self.scale


def quiet(*args: Any, **kwargs: Any) -> CondensationPipeline:
    pipe = CondensationPipeline(*args, **{"device": "cpu", **kwargs})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_folder_in_the_way_is_found_before_the_work(tiny_store: ClassStore, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no bundle"):
        quiet("pixels")(tiny_store, "dm-gan", steps=1, settings=SMALL, out=out)
    assert not (tmp_path / "run.run").exists(), "no sketch was taken"
    with pytest.raises(InputError, match="is no bundle"):
        quiet("pixels").estimate(tiny_store, "dm-gan", settings=SMALL, out=out)


def test_a_finished_bundle_of_another_run_is_not_lost(tiny_store: ClassStore, make_store: Any, tmp_path: Path) -> None:
    out, small = tmp_path / "set", ("source.width=4", "source.num_per_class=5")
    first = quiet("pixels")(tiny_store, "dm", steps=1, images_per_class=1, settings=small, out=out)
    before = first.bundle.bank.latents()["x"]
    stored = quiet("pixels")(tiny_store, "dm", steps=1, images_per_class=1, settings=small, storage="int4", out=out)
    assert stored.bundle.bank.storage == "int4", "its own run, from its checkpoint"
    quiet("pixels")(tiny_store, "dm", steps=1, images_per_class=1, settings=small, out=out)
    shutil.rmtree(tmp_path / "set.run")
    again = ("source.width=4", "source.num_per_class=6")
    with pytest.raises(InputError, match=r"finished bundle of another run \(other: seed, source\.num_per_class\)"):
        quiet("pixels")(tiny_store, "dm", steps=1, seed=3, images_per_class=1, settings=again, out=out)
    other = {"steps": 1, "seed": 3, "images_per_class": 1}
    with pytest.raises(InputError, match="finished bundle of another run"):
        quiet("pixels").estimate(tiny_store, "dm", overrides=other, settings=again, out=out)
    assert quiet("pixels").estimate(tiny_store, "dm", overrides=other, settings=again, out=out, resume=False)
    with pytest.raises(InputError, match=r"another run \(other: data\)"):
        quiet("pixels")(make_store(20), "dm", steps=1, images_per_class=1, settings=small, out=out)
    assert torch.equal(load_bundle(out).bank.latents()["x"], before)
    same = quiet("pixels")(tiny_store, "dm", steps=1, images_per_class=1, settings=small, out=out)
    assert torch.equal(same.bundle.bank.latents()["x"], before), "made again"
    fresh = quiet("pixels")(
        tiny_store, "dm", steps=1, seed=3, images_per_class=1, settings=small, out=out, resume=False
    )
    assert fresh.bundle.provenance["seed"] == 3, "asked for"


def test_a_decoder_that_cannot_travel_is_found_before_the_work(tiny_store: ClassStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Homemade travels inside the bundle"):
        quiet(Homemade())(tiny_store, "dm", steps=1, settings=SMALL, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_precisions_share_a_process(tiny_store: ClassStore, tmp_path: Path) -> None:
    single, half = (
        quiet("pixels", precision=precision)(tiny_store, "dm", steps=2, settings=SMALL, out=tmp_path / precision)
        for precision in ("fp32", "bf16")
    )
    assert quiet("pixels").device == torch.device("cpu")
    assert [out.bundle.provenance["precision"] for out in (single, half)] == ["fp32", "bf16"]
    assert not torch.equal(single.bundle.bank.latents()["x"], half.bundle.bank.latents()["x"])


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="sees no cuda device"):
        CondensationPipeline("pixels", device="cuda")
    with pytest.raises(InputError, match="sees no cuda device"):
        quiet("pixels").to("cuda:1")
    with pytest.raises(InputError, match='Did you mean "cpu"'):
        quiet("pixels").to("cpuu")


def test_provenance_names_decoder_and_recipe(tiny_store: ClassStore, tmp_path: Path) -> None:
    out = quiet("pixels")(tiny_store, "dm", steps=1, settings=SMALL, out=tmp_path / "run")
    told = out.bundle.provenance
    assert told["decoder_name"] == "pixels"
    assert told["decoder_sha256"] == fingerprint(out.bundle.decoder)
    assert parse_recipe(tomllib.loads(told["recipe_toml"])) == out.recipe
    assert out.recipe.steps == 1
    assert str(tmp_path) not in (out.path / "provenance.json").read_text()
