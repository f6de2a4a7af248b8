"""Decoders of every layout by the name of their repository: pipelines, parts of one, weights in several files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from standin_hub import Hub
from test_cli_run import run
from test_diffusers_folder import kl, pipeline
from tiny_models import DIT, tiny_unet
from tiny_parts import SPEC, tiny_bank, write_bundle

from latentdc.bundle import load_bundle, reference, save_bundle
from latentdc.data.store import ClassStore
from latentdc.decoders.components import WEIGHTS, sha256_of
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, InputError
from latentdc.hub import fetch
from latentdc.latents import decode
from latentdc.pipelines.condensation import CondensationOutput, CondensationPipeline
from latentdc.pipelines.publish import push_to_hub
from latentdc.seeding import global_seed

SMALL = ("source.width=8", "source.num_pairs=1")
COMMIT = "a" * 40


def images(bundle: Any) -> torch.Tensor:
    return decode(bundle.decoder, bundle.bank, formation=bundle.formation).x


def condensed(pipe: CondensationPipeline, store: ClassStore, out: Path, **given: Any) -> CondensationOutput:
    pipe.to("cpu").set_progress_bar_config(disable=True)
    return pipe(store, "dm-gan", out=out, **{"steps": 1, "settings": SMALL, **given})


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def ddim(tmp_path: Path) -> Path:
    with global_seed(0, "layouts"):
        return pipeline(tmp_path / "pipe", diffusers.DDIMScheduler(clip_sample=False), unet=tiny_unet(3))


def test_a_pipeline_pushed_is_what_a_run_condenses_through(
    hub: Hub, ddim: Path, tiny_store: ClassStore, tmp_path: Path
) -> None:
    push_to_hub(ddim, "me/pipe")
    assert 'from_pretrained("me/pipe")' in hub.commits["me/pipe"][-1][1]["README.md"].decode()
    pipe = CondensationPipeline.from_pretrained("me/pipe")
    whole = condensed(pipe, tiny_store, tmp_path / "whole").bundle
    # Seven steps are no thinning of the ten that are the default: the plan is made of the scheduler again.
    given = {"settings": (*SMALL, "decoder.steps=7"), "copy_decoder": False}
    named = condensed(pipe, tiny_store, tmp_path / "named", **given).bundle
    assert (len(whole.decoder.plan), len(named.decoder.plan)) == (10, 7)
    assert named.decoder_reference["sha256"].keys() == {
        "model_index.json", "scheduler/scheduler_config.json", "unet/config.json", f"unet/{WEIGHTS}",
    }  # fmt: skip
    again = load_bundle(tmp_path / "named", decoder_folder=ddim)
    assert torch.equal(images(again), images(named))
    plain = condensed(pipe, tiny_store, tmp_path / "plain", copy_decoder=False).bundle
    assert torch.equal(images(plain), images(whole))


HARMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "scheduler": (
        "scheduler/scheduler_config.json",
        lambda folder: edit(folder / "scheduler" / "scheduler_config.json", beta_end=0.03),
    ),
    "scheduler's class": (
        "scheduler/scheduler_config.json",
        lambda folder: edit(folder / "scheduler" / "scheduler_config.json", _class_name="DDPMScheduler"),
    ),
    "classes": ("model_index.json", lambda folder: edit(folder / "model_index.json", id2label={"0": "bag"})),
    "weights": (f"unet/{WEIGHTS}", lambda folder: tiny_unet(3).save_pretrained(folder / "unet")),
}


@pytest.mark.parametrize("case", HARMS)
def test_another_file_of_a_pipeline_is_refused(case: str, ddim: Path, tmp_path: Path) -> None:
    commit = shutil.copytree(ddim, tmp_path / COMMIT)
    decoder = load_decoder(commit, SPEC)
    named = save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={},
                        decoder_reference=reference("me/pipe", commit))  # fmt: skip
    assert torch.equal(images(load_bundle(named, decoder_folder=ddim)), decode(decoder, tiny_bank(decoder)).x)
    file, harm = HARMS[case]
    harm(ddim)
    said = rf"not the decoder .*\(me/pipe@a+\): the sha256 of {file} is \w+…, not \w+…\. Its images would be others"
    with pytest.raises(BundleError, match=said):
        load_bundle(named, decoder_folder=ddim)
    shutil.rmtree(ddim / "scheduler")
    with pytest.raises(BundleError, match=r"scheduler_config.json is missing; the bundle needs the decoder me/pipe@"):
        load_bundle(named, decoder_folder=ddim)


@pytest.fixture
def whole_dit(tmp_path: Path) -> Path:
    """A DiT in the latents of an autoencoder whose weights lie in several files."""
    with global_seed(0, "layouts"):
        dit = diffusers.DiTTransformer2DModel(**DIT)
    folder = pipeline(tmp_path / "dit", diffusers.DDIMScheduler(clip_sample=False), transformer=dit, vae=kl())
    (folder / "vae" / WEIGHTS).unlink()
    kl().save_pretrained(folder / "vae", max_shard_size="10KB")
    assert len(list((folder / "vae").glob("*-of-*.safetensors"))) > 1
    return folder


def test_a_part_of_a_pipeline_in_several_files(
    hub: Hub, whole_dit: Path, tiny_store: ClassStore, tmp_path: Path
) -> None:
    push_to_hub(whole_dit, "me/dit")
    pipe = CondensationPipeline.from_pretrained("me/dit", subfolder="vae")
    assert all(name.startswith("vae/") for name in hub.fetched)
    named = condensed(pipe, tiny_store, tmp_path / "named", copy_decoder=False).bundle
    whole = condensed(pipe, tiny_store, tmp_path / "whole").bundle
    assert torch.equal(images(named), images(whole))
    told, sha = named.decoder_reference, hub.commits["me/dit"][-1][0]
    assert (told["repo_id"], told["subfolder"], named.decoder_public) == ("me/dit", "vae", f"me/dit@{sha}/vae")
    shards = {path.name for path in (whole_dit / "vae").glob("*.safetensors")}
    assert told["sha256"].keys() == {"config.json", f"{WEIGHTS}.index.json", *shards}
    local = CondensationPipeline.from_pretrained(whole_dit, subfolder="vae")
    assert torch.equal(images(condensed(local, tiny_store, tmp_path / "local").bundle), images(whole))
    kl().save_pretrained(tmp_path / "one")
    shutil.copyfile(tmp_path / "one" / WEIGHTS, whole_dit / "vae" / WEIGHTS)
    with pytest.raises(BundleError, match=rf"sha256 of {WEIGHTS} is \w+…, and the bundle knows no such file"):
        load_bundle(tmp_path / "named", decoder_folder=whole_dit / "vae")
    whole_pipe = CondensationPipeline.from_pretrained("me/dit")
    assert {"vae/config.json", "transformer/config.json"} < whole_pipe.decoder_reference["sha256"].keys()


def test_the_decoder_of_a_bundle_by_name(hub: Hub, tmp_path: Path) -> None:
    push_to_hub(write_bundle(tmp_path / "set"), "me/set")
    pipe = CondensationPipeline.from_pretrained("me/set", subfolder="decoder")
    assert pipe.decoder_reference["sha256"].keys() == {"config.json", WEIGHTS}


def test_the_command_takes_a_subfolder(hub: Hub, whole_dit: Path, tmp_path: Path) -> None:
    push_to_hub(whole_dit, "me/dit")
    shown = run("condense", "--data", "fashion-mnist-mini", "--size", 8, "--decoder", "me/dit", "--subfolder", "vae",
                "--recipe", "dm-gan", "--images-per-class", 1, "--set", "source.width=8", "--set", "source.num_pairs=1",
                "--steps", 1, "--dry-run", "--json", "--device", "cpu", "--out", tmp_path / "out")  # fmt: skip
    assert json.loads(shown)["decoder"]["latents"] == {"z": [2, 4, 4]}


def test_a_subfolder_that_is_not_there(hub: Hub, ddim: Path) -> None:
    push_to_hub(ddim, "me/pipe")
    apart = (
        r'"me/pipe/vae" is no folder of a decoder.*given apart: "me/pipe" with --subfolder vae, in Python subfolder='
    )
    with pytest.raises(InputError, match=apart):
        CondensationPipeline.from_pretrained("me/pipe/vae")
    with pytest.raises(InputError, match='"me/pipe": has no folder "vae" with weights or settings'):
        fetch("me/pipe", "decoder", subfolder="vae")
    with pytest.raises(InputError, match="pipe/vae: no such folder; give that of a decoder"):
        CondensationPipeline.from_pretrained(ddim, subfolder="vae")
    with pytest.raises(
        InputError, match='subfolder = "vae": lies in a folder or an owner/name; give one as the decoder, not pixels'
    ):
        CondensationPipeline.from_pretrained("pixels", subfolder="vae")


@pytest.fixture
def named_kl(tmp_path: Path) -> Callable[[Any], tuple[Path, Path]]:
    """A bundle that names an autoencoder, and a copy of that, as another version of diffusers may have written it."""

    def make(sha256: Any = None) -> tuple[Path, Path]:
        commit, copy = tmp_path / COMMIT, tmp_path / "copy"
        kl().save_pretrained(commit)
        decoder, named = load_decoder(commit, SPEC), reference("me/kl", commit)
        if sha256 is not None:
            named["sha256"] = sha256(commit)
        bundle = save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={},
                             decoder_reference=named)  # fmt: skip
        diffusers.AutoencoderKL.from_pretrained(commit).save_pretrained(copy)
        edit(copy / "config.json", _diffusers_version="0.99.0", _name_or_path="somewhere/else")
        return bundle, copy

    return make


def test_the_configuration_is_compared_by_what_it_says(named_kl: Callable[..., tuple[Path, Path]]) -> None:
    bundle, copy = named_kl()
    before = images(load_bundle(bundle, decoder_folder=copy))
    assert before.shape == (6, *SPEC.image_shape)
    edit(copy / "config.json", scaling_factor=1.0)
    with pytest.raises(BundleError, match=r"sha256 of config\.json is .* Its images would be others"):
        load_bundle(bundle, decoder_folder=copy)


def test_the_one_checksum_of_earlier_bundles_is_that_of_the_weights(
    named_kl: Callable[..., tuple[Path, Path]],
) -> None:
    bundle, copy = named_kl(lambda commit: sha256_of(commit / WEIGHTS))
    index = json.loads((bundle / "model_index.json").read_text())
    assert isinstance(index["decoder_reference"]["sha256"], str)
    assert images(load_bundle(bundle, decoder_folder=copy)).shape == (6, *SPEC.image_shape)
    diffusers.AutoencoderKL.from_config(kl().config).save_pretrained(copy)
    with pytest.raises(BundleError, match=rf"the sha256 of {WEIGHTS} is .* Its images would be others"):
        load_bundle(bundle, decoder_folder=copy)
