"""Bundles and decoders to the Hub and back, against a stand-in on this machine: nothing that could run is fetched."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from standin_hub import Hub
from test_diffusers_folder import kl
from tiny_parts import SPEC, tiny_bank, tiny_decoder, write_bundle

from latentdc.bundle import load_bundle, reference, requantise, save_bundle
from latentdc.bundle.references import resolve
from latentdc.data.store import ClassStore
from latentdc.decoders.components import WEIGHTS
from latentdc.decoders.reference import load_decoder, seal
from latentdc.errors import BundleError, InputError
from latentdc.hub import fetch, is_repository, repository_of
from latentdc.latents import decode
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.pipelines.publish import push_to_hub
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline
from latentdc.portable.pipeline import DatasetSynthesisBundle


@pytest.fixture
def decoder_folder(tmp_path: Path) -> Path:
    """A decoder's folder as training one leaves it, picture and card included."""
    folder = tmp_path / "gan"
    tiny_decoder("gan").save_pretrained(folder)
    (folder / "samples.png").write_bytes(b"picture")
    (folder / "train.py").write_text("raise SystemExit")
    card = {"data": "tiny", "image_shape": [1, 8, 8], "num_classes": 3, "license": "mit"}
    seal(folder, card)
    return folder


def images(folder: Path | str) -> torch.Tensor:
    bundle = load_bundle(folder)
    return decode(bundle.decoder, bundle.bank, formation=bundle.formation).x


def test_a_bundle_pushed_comes_back_and_its_code_stays(hub: Hub, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    pipe = DatasetSynthesisPipeline.from_pretrained(bundle)
    address = pipe.push_to_hub("me/set")
    assert address == f"{hub.address}/me/set/commit/{hub.commits['me/set'][-1][0]}"
    assert any(name.endswith(".py") for name in hub.commits["me/set"][-1][1])
    back = DatasetSynthesisPipeline.from_pretrained("me/set")
    assert torch.equal(back(output_type="pt").images, pipe(output_type="pt").images)
    assert hub.fetched
    assert all(Path(name).suffix in {".json", ".safetensors", ".md"} for name in hub.fetched)
    assert back._bundle.storage.bytes_per_class == load_bundle(bundle).storage.bytes_per_class
    back.save_pretrained(tmp_path / "again")  # With its code, from the installed classes.
    assert torch.equal(images(tmp_path / "again"), images(bundle))


def test_a_revision_is_pinned(hub: Hub, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "first")
    push_to_hub(first, "me/set")
    pinned = hub.commits["me/set"][-1][0]
    second = requantise(first, tmp_path / "second", "int8")
    push_to_hub(second, "me/set")
    assert torch.equal(images(fetch(f"me/set@{pinned}", "bundle")), images(first))
    assert torch.equal(images(fetch("me/set", "bundle", revision=pinned)), images(first))
    assert load_bundle(fetch("me/set", "bundle")).bank.storage == "int8"
    files = hub.commits["me/set"][-1][1]
    manifest = json.loads(files["manifest.json"])["files"]
    assert {name for name in files if name.endswith(".py")} == {name for name in manifest if name.endswith(".py")}


def test_a_decoder_pushed_is_what_a_run_condenses_through(
    hub: Hub, decoder_folder: Path, tiny_store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(decoder_folder, "me/gan")
    files = hub.commits["me/gan"][-1][1]
    assert "train.py" not in files
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    pipe = CondensationPipeline.from_pretrained("me/gan@main")
    assert "samples.png" not in hub.fetched
    pipe.to("cpu").set_progress_bar_config(disable=True)
    small = {"steps": 1, "settings": ("source.width=8", "source.num_pairs=1")}
    with monkeypatch.context() as patch:  # the Hub is not asked again: it would be without the token that was given
        patch.setattr("latentdc.bundle.references.fetch", None)
        out = pipe(tiny_store, "dm-gan", out=tmp_path / "named", copy_decoder=False, **small)
    sha = hub.commits["me/gan"][-1][0]
    assert out.bundle.decoder_reference["revision"] == sha
    assert out.bundle.decoder_public == f"me/gan@{sha}"
    told = [pipe.estimate(tiny_store, settings=small["settings"], copy_decoder=copy) for copy in (True, False)]
    weights = out.bundle.storage.public_decoder
    assert told[0]["bundle_bytes"] - told[1]["bundle_bytes"] == weights
    whole = pipe(tiny_store, "dm-gan", out=tmp_path / "whole", **small)
    assert torch.equal(images(tmp_path / "named"), images(tmp_path / "whole"))
    assert not list((tmp_path / "named").rglob("decoder"))
    assert whole.bundle.decoder_reference is None


def test_a_named_decoder_is_read_in_the_space_that_was_asked_for(
    hub: Hub, decoder_folder: Path, tiny_store: ClassStore, tmp_path: Path
) -> None:
    push_to_hub(decoder_folder, "me/gan")
    pipe = CondensationPipeline.from_pretrained("me/gan")
    pipe.to("cpu").set_progress_bar_config(disable=True)
    settings = ("source.width=8", "source.num_pairs=1", "decoder.space=f0")
    pipe(tiny_store, "dm-gan", out=tmp_path / "named", copy_decoder=False, steps=1, settings=settings)
    back = load_bundle(tmp_path / "named")
    assert back.decoder_reference["settings"] == {"space": "f0"}
    assert back.decoder.latent_shapes == back.bank.shapes == {"f": (8, 4, 4), "w": (2, 4)}
    index = json.loads((tmp_path / "named" / "model_index.json").read_text())["decoder_reference"]
    with pytest.raises(BundleError, match=r"cannot be read as it was: decoder\.spce"):
        resolve({**index, "settings": {"spce": "f0"}}, {})
    with pytest.raises(BundleError, match="give repo_id, revision, subfolder, sha256, each a text"):
        resolve({**index, "settings": "f0"}, {})


@pytest.fixture
def named(hub: Hub, decoder_folder: Path, tmp_path: Path) -> Path:
    """A bundle that names its decoder."""
    push_to_hub(decoder_folder, "me/gan")
    decoder = tiny_decoder("gan")
    pinned = reference("me/gan", fetch("me/gan", "decoder"))
    folder = tmp_path / "named"
    report = {"rows": [{"name": "bundle", "basis": "equal-images", "student": "convnet", "images_per_class": 2.0,
                        "bytes_per_class": 36.0, "runs": [{"accuracy": 60.0}, {"accuracy": 62.0}]}]}  # fmt: skip
    return save_bundle(
        folder, bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={"license": "mit"},
        decoder_reference=pinned, report=report,
    )  # fmt: skip


def test_a_bundle_that_names_its_decoder_fetches_and_checks_it(named: Path, decoder_folder: Path) -> None:
    whole = tiny_decoder("gan")
    expected = decode(whole, tiny_bank(whole)).x
    assert torch.equal(images(named), expected)
    storage = load_bundle(named).storage
    assert storage.public_decoder > 0 == storage.private_decoder
    assert storage.total == sum(path.stat().st_size for path in named.rglob("*") if path.is_file())
    by_hand = load_bundle(named, decoder_folder=decoder_folder)
    assert torch.equal(decode(by_hand.decoder, by_hand.bank).x, expected)
    card = (named / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == ["me/gan"]
    assert front["license"] == "mit"
    assert front["library_name"] == "diffusers"
    assert "| bundle (equal-images) | convnet | 2 | 36 | 61.0 ± 1.4 | 2 |" in card
    assert "not in this folder: me/gan at commit" in card
    again = requantise(named, named.parent / "again", "int8", decoder_folder=decoder_folder)
    assert load_bundle(again).decoder_reference == load_bundle(named).decoder_reference


def test_a_named_autoencoder_of_diffusers_makes_the_datas_images(tmp_path: Path) -> None:
    """Its configuration tells the size it was trained at, colour images of 8 x 8; the bundle decodes grey 16 x 16."""
    commit = tmp_path / ("a" * 40)
    kl().save_pretrained(commit)
    spec = replace(SPEC, image_shape=(1, 16, 16))
    decoder = load_decoder(commit, spec)
    bank = tiny_bank(decoder)
    path = save_bundle(tmp_path / "b", bank=bank, decoder=decoder, spec=spec, provenance={},
                       decoder_reference=reference("me/kl", commit))  # fmt: skip
    back = load_bundle(path, decoder_folder=commit)
    assert tuple(back.decoder.image_shape) == (1, 16, 16)
    assert torch.equal(decode(back.decoder, back.bank).x, decode(decoder, bank).x)


def test_without_latentdc_the_decoder_is_passed(named: Path) -> None:
    decoder = tiny_decoder("gan")
    bank = load_bundle(named).bank
    bare = DatasetSynthesisBundle(None, bank, decoder_reference={"repo_id": "me/gan"})
    with pytest.raises(ValueError, match=r"names one: \{'repo_id': 'me/gan'\}\. Load that and pass it"):
        bare(output_type="pt")
    given = DatasetSynthesisBundle(decoder, bank)(output_type="pt").images
    assert torch.equal(given, decode(decoder, bank).x.clamp(0, 1))


def test_other_weights_under_the_same_name_are_refused(named: Path, decoder_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(decoder_folder, tmp_path / "other")
    (other / "card.json").unlink()
    tiny_decoder("gan", seed=1).save_pretrained(other)
    with pytest.raises(BundleError, match=r"not the decoder that the bundle was made with \(me/gan@"):
        load_bundle(named, decoder_folder=other)
    (other / WEIGHTS).unlink()
    with pytest.raises(BundleError, match="the bundle needs the decoder me/gan@"):
        load_bundle(named, decoder_folder=other)


def test_what_the_hub_does_not_give_is_said(hub: Hub, tmp_path: Path, decoder_folder: Path) -> None:
    with pytest.raises(InputError, match=r'"me/nothing" is no folder of a bundle, and the Hub did not give it'):
        DatasetSynthesisPipeline.from_pretrained("me/nothing")
    push_to_hub(decoder_folder, "me/gan")
    with pytest.raises(InputError, match="Check the path, the name and the revision"):
        fetch("me/gan@v9", "decoder")
    with pytest.raises(InputError, match="Hub did not give it"):
        fetch("me/never", "decoder", local_files_only=True)
    hub.read_only = True
    with pytest.raises(
        InputError, match=r'"me/gan": the Hub did not take it: .*Check the connection, the name and the token'
    ):
        push_to_hub(decoder_folder, "me/gan")


def test_names_of_repositories() -> None:
    assert is_repository("me/set")
    assert is_repository("me/set@v1/x")
    assert not any(map(is_repository, ["set", "./set", "a/b/c", "/a/b", "~/b", "a/b@", "me/set@@x"]))
    assert repository_of("me/set@v1") == ("me/set", "v1")
    assert repository_of("me/set", "v1") == ("me/set", "v1")
    with pytest.raises(InputError, match=r'"me/set@v1" and revision = "v2": give the revision once'):
        repository_of("me/set@v1", "v2")
    with pytest.raises(InputError, match=r'"x" is no folder of a bundle, and not an owner/name'):
        repository_of("x", what="bundle")


def test_other_refusals(tmp_path: Path, tiny_store: ClassStore) -> None:
    good = {"repo_id": "me/gan", "revision": "a" * 40, "subfolder": "", "sha256": "b" * 64}
    decoder = tiny_decoder("gan")
    for changes, message in (
        ({"revision": "main"}, r'revision = "main": give the 40 digits of a commit'),
        ({"sha256": "b"}, "give 64 hexadecimal digits"),
        ({"sha256": {"config.json": "b"}}, r'sha256 of config\.json = "b": give 64 hexadecimal digits'),
        ({"sha256": {}}, "each a text"),
        ({"repo_id": "gan"}, r'repo_id = "gan": give owner/name'),
        ({"subfolder": "../x"}, "give a folder in the repository"),
        ({"subfolder": None}, "each a text"),
    ):
        with pytest.raises(InputError, match=message):
            save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={},
                        decoder_reference={**good, **changes})  # fmt: skip
    with pytest.raises(InputError, match="referred to by the sha256 of its safetensors"):
        reference("me/gan", tmp_path)
    with pytest.raises(InputError, match="neither a bundle"):
        push_to_hub(tmp_path, "me/x")
    with pytest.raises(InputError, match="copy_decoder = False: the bundle would have no decoder"):
        CondensationPipeline("pixels", device="cpu")(tiny_store, "dm", out=tmp_path / "o", copy_decoder=False)
    with pytest.raises(InputError, match="copy_decoder = False: the bundle would have no decoder"):
        CondensationPipeline("pixels", device="cpu").estimate(tiny_store, "dm", copy_decoder=False)


def test_a_reference_that_was_edited_is_refused(named: Path) -> None:
    with pytest.raises(BundleError, match="the bundle's decoder cannot be found: decoder_reference"):
        resolve({"repo_id": "me/gan"}, {})


def test_a_cached_decoder_folder_loads_though_its_files_are_links(hub: Hub, decoder_folder: Path) -> None:
    push_to_hub(decoder_folder, "me/gan")
    folder = fetch("me/gan", "decoder")
    assert (folder / WEIGHTS).is_symlink()
    assert torch.equal(load_decoder(folder).embed.weight, load_decoder(decoder_folder).embed.weight)
