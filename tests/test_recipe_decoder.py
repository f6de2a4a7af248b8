"""A pretrained decoder with settings, from the recipe to the bundle and its baseline."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_diffusers_folder import pipeline
from tiny_models import KL, UNET
from tiny_parts import SPEC, tiny_decoder
from typer.testing import CliRunner

from latentdc import resources
from latentdc.bundle import load_bundle
from latentdc.cli.__main__ import app
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import default_decoder, locate, seal
from latentdc.decoders.settings import configured
from latentdc.errors import InputError, RecipeError
from latentdc.evaluate.baselines import candidates, undistilled
from latentdc.evaluate.sets import Subject
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import Part, build, cite, decoder_text, identity, parse_recipe, to_toml

ONE = {"images_per_class": 1, "source": {"arch": "mlp", "width": 8, "num_per_class": 6}}
SHIPPED = {"a-diffusion": "diffusion", "b-vae": "autoencoder", "c-gan": "gan", "d-gan-w": "gan:mapped-z"}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_store: ClassStore) -> Path:
    """Shipped checkpoints of every kind for the tiny data."""
    root = tmp_path / "shipped"
    card = {"data": "tiny", "image_shape": [1, 8, 8], "class_names": list(tiny_store.spec.class_names)}
    for name, of in SHIPPED.items():
        tiny_decoder(of).save_pretrained(root / "checkpoints" / name)
        seal(root / "checkpoints" / name, {"kind": of.partition(":")[0], **card})
    monkeypatch.setattr(resources, "_ROOTS", (*resources._ROOTS, root))
    return root / "checkpoints"


def built(store: ClassStore, decoder: Any, *settings: str, given: Any = None) -> Any:
    return build(parse_recipe(ONE | {"decoder": decoder}, settings=settings), store.spec, decoder=given)


@pytest.mark.parametrize(
    ("decoder", "name", "shapes"),
    [
        ("default", "c-gan", {"z": (4,)}),
        ("gan", "c-gan", {"z": (4,)}),
        ({"kind": "gan", "space": "w"}, "d-gan-w", {"w": (4,)}),
        ({"kind": "default", "space": "w+"}, "d-gan-w", {"w": (3, 4)}),
        ({"kind": "gan", "space": "f0"}, "c-gan", {"f": (8, 4, 4), "w": (2, 4)}),
        ({"kind": "d-gan-w", "truncation": 1}, "d-gan-w", {"z": (4,)}),
        ("autoencoder", "b-vae", {"z": (2, 4, 4)}),
        ({"kind": "diffusion", "steps": 1, "learn_condition": True}, "a-diffusion", {"z": (1, 8, 8), "c": (32,)}),
    ],
)
def test_which_decoder_is_meant(
    decoder: Any, name: str, shapes: dict[str, tuple[int, ...]], shop: Path, tiny_store: ClassStore
) -> None:
    parts = built(tiny_store, decoder)
    assert parts.decoder.latent_shapes == shapes
    options = {key: value for key, value in decoder.items() if key != "kind"} if isinstance(decoder, dict) else {}
    assert parts.recipe.decoder == (Part(name, options) if options else name)
    again = parse_recipe(tomllib.loads(to_toml(parts.recipe)))
    assert again == parts.recipe
    assert parts.decoder_name == decoder_text(again.decoder)
    assert identity(build(again, tiny_store.spec)) == identity(parts)
    json.dumps(identity(parts))
    cite(parts.recipe)


def test_the_kind_comes_before_the_name(shop: Path, tiny_store: ClassStore) -> None:
    spec = tiny_store.spec
    assert default_decoder(spec).name == "c-gan"
    for folder in (shop / "c-gan", shop / "d-gan-w"):
        (folder / "card.json").unlink()
    assert default_decoder(spec).name == "a-diffusion"
    assert default_decoder(spec, "gan") is None
    (shop / "a-diffusion" / "card.json").unlink()
    assert default_decoder(spec) is None
    with pytest.raises(
        InputError, match="Take the autoencoder b-vae, from real images: --decoder b-vae --set init=real"
    ):
        locate(None, spec)
    with pytest.raises(InputError, match=r'no shipped decoder of kind gan fits the data "tiny" with images 1 x 8 x 8'):
        locate("gan", spec)
    tiny_decoder("gan").save_pretrained(shop.parent / "gan")
    assert locate(str(shop.parent / "gan"), spec) == shop.parent / "gan"


def test_settings_decide_the_run(shop: Path, tiny_store: ClassStore) -> None:
    plain = identity(built(tiny_store, "d-gan-w"))
    for setting in ("decoder.space=w", "decoder.truncation=0.5"):
        assert identity(built(tiny_store, "d-gan-w", setting)) != plain
    assert identity(built(tiny_store, "d-gan-w", "decoder.space=z")) == plain
    steps = [identity(built(tiny_store, "diffusion", f"decoder.steps={n}")) for n in (1, 2)]
    assert steps[0] != steps[1]


def test_settings_apply_to_a_decoder_that_is_given(shop: Path, tiny_store: ClassStore) -> None:
    given = tiny_decoder("gan:mapped-z")
    parts = built(tiny_store, {"kind": "any", "space": "w"}, given=given)
    assert parts.decoder.latent_shapes == {"w": (4,)}
    assert parts.decoder_name.endswith(' (space = "w")')
    assert built(tiny_store, {"kind": "memory", "num_bases": 4}, given=given).decoder is given
    with pytest.raises(InputError, match='decoder "GanDecoder" makes images 1 x 8 x 8 of 3 classes, the data "two"'):
        build(parse_recipe(ONE), replace(SPEC, name="two", class_names=("a", "b")), decoder=given)


def test_name_and_settings_in_any_order(shop: Path, tiny_store: ClassStore) -> None:
    pipe = CondensationPipeline.from_pretrained("d-gan-w")
    for recipe in ("dm-gan", "dm"):
        parts = pipe.prepare(tiny_store, recipe, settings=["decoder.space=w+"])[1]
        assert parts.recipe.decoder == Part("d-gan-w", {"space": "w+"})
    module = CondensationPipeline(tiny_decoder("gan:mapped-z"))
    assert module.prepare(tiny_store, "dm", settings=["decoder.space=w"])[1].decoder.space == "w"
    changes = {"decoder.space": "w", "decoder": "gan"}
    assert parse_recipe(ONE, overrides=changes).decoder == Part("gan", {"space": "w"})
    assert (
        parse_recipe(ONE | {"decoder": {"kind": "memory", "num_bases": 3}}, overrides={"decoder": "gan"}).decoder
        == "gan"
    )


@pytest.mark.parametrize(
    ("decoder", "error", "message"),
    [
        ({"kind": "gan", "spaec": "w"}, InputError, r'decoder\.spaec: "spaec": no such setting.*Did you mean "space"'),
        ({"kind": "c-gan", "space": "w"}, InputError, "this generator has z and f0 to f1"),
        ({"kind": "gan", "space": "w7"}, InputError, 'space "w7": this generator has z and f0'),
        ({"kind": "gan", "truncation": "much"}, RecipeError, r"decoder\.truncation = 'much': a value of type float"),
        ({"kind": "diffusion", "learn_condition": "yes"}, RecipeError, r"decoder\.learn_condition = 'yes'.*type bool"),
        ({"kind": "diffusion", "steps": 2.5}, RecipeError, r"decoder\.steps = 2\.5: a value of type int"),
        ({"kind": "pixels", "space": "w"}, InputError, "no such setting of a decoder pixels"),
        ({"kind": "c-gna", "space": "w"}, InputError, r'"c-gna": no such decoder\. Did you mean "c-gan"'),
    ],
)
def test_refusals(decoder: Any, error: type[Exception], message: str, shop: Path, tiny_store: ClassStore) -> None:
    with pytest.raises(error, match=message):
        built(tiny_store, decoder)


def test_steps_of_a_folder_of_diffusers(tmp_path: Path, tiny_store: ClassStore) -> None:
    import diffusers

    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    folder = pipeline(tmp_path / "ddpm", scheduler, unet=diffusers.UNet2DModel(**UNET, num_class_embeds=4))
    settings = {"class_ids": [2, 0, 1], "guidance": 2, "null_class": 3}
    parts = built(tiny_store, {"kind": str(folder), "steps": 3, **settings})
    assert len(parts.decoder.plan) == 3
    assert (parts.decoder.class_ids, parts.decoder.guidance) == ([2, 0, 1], 2.0)
    assert parts.decoder_name.startswith("ddpm@sha256:")
    diffusers.AutoencoderKL(**KL).save_pretrained(tmp_path / "kl")
    assert built(tiny_store, {"kind": str(tmp_path / "kl"), "latent_scale": 3}).decoder.latent_scale == 3.0
    with pytest.raises(InputError, match="no such setting of a AutoencoderDecoder"):
        built(tiny_store, {"kind": str(tmp_path / "kl"), "steps": 3})


def test_the_bundle_and_its_baseline_are_in_that_space(shop: Path, tiny_store: ClassStore, tmp_path: Path) -> None:
    pipe = CondensationPipeline.from_pretrained("d-gan-w").to("cpu")
    pipe.set_progress_bar_config(disable=True)
    small = ("source.width=8", "source.num_pairs=1", "decoder.space=w+", "decoder.truncation=0.7")
    bundle = pipe(tiny_store, "dm-gan", out=tmp_path / "out", steps=1, settings=small).bundle
    assert bundle.decoder.latent_shapes == bundle.bank.shapes == {"w": (3, 4)}
    assert bundle.decoder.psi == 0.7
    assert bundle.provenance["decoder_name"] == 'd-gan-w (space = "w+", truncation = 0.7)'
    assert 'kind = "d-gan-w"\nspace = "w+"' in bundle.provenance["recipe_toml"]
    assert torch.equal(load_bundle(tmp_path / "out").decoder.embed.weight, tiny_decoder("gan:mapped-z").embed.weight)
    wider = replace(bundle, decoder=configured(bundle.decoder, {"truncation": 1.0}))
    assert undistilled(bundle, 0).x.shape == (3, 1, 8, 8)
    assert not torch.equal(undistilled(bundle, 0).x, undistilled(wider, 0).x)
    keys = {candidates(Subject("s", undistilled(each, 0), 1, {}, 4, "", each), tiny_store, ["undistilled"])[0][-1].key
            for each in (bundle, wider)}  # fmt: skip
    assert len(keys) == 2


def test_dry_run_and_list_say_so(shop: Path, tmp_path: Path) -> None:
    from test_cli_run import write

    from latentdc.data.store import from_arrays

    images, labels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(3).repeat_interleave(2)
    images += torch.arange(6, dtype=torch.uint8)[:, None, None, None]
    write(from_arrays(images, labels, ["class-0", "class-1", "class-2"], name="tiny"), tmp_path / "tiny")
    command = ["condense", "--data", str(tmp_path / "tiny"), "--recipe", "dm", "--images-per-class", "1", "--dry-run"]
    small = ["--set", "source.width=8", "--set", "source.num_per_class=2", "--set", "init=prior"]
    asked = ["--decoder", "d-gan-w", "--set", "decoder.space=w+", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, *small, *asked])
    assert done.exit_code == 0, done.output
    assert "decoder.kind = d-gan-w" in done.stdout
    assert "decoder.options.space = w+" in done.stdout
    assert 'decoder   d-gan-w (space = "w+"): latents w 3 x 4' in done.stdout
