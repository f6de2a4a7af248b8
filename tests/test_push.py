"""Decoded data sets to the Hub, and the command that pushes: against a stand-in on this machine."""

from __future__ import annotations

import io
import json
import re
import socket
import tarfile
from pathlib import Path
from typing import Any

import datasets
import diffusers
import numpy as np
import pytest
import torch
import yaml
from standin_hub import Hub
from test_cli_run import run
from test_diffusers_folder import pipeline
from tiny_models import tiny_unet
from tiny_parts import SPEC, tiny_decoder, write_bundle
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, MissingExtraError
from latentdc.evaluate.sets import subject_of
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.pipelines.publish import PARQUET, push_dataset_to_hub
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", provenance={"license": "mit", "data": "tiny", "recipe": "two\nlines"})


def read(hub: Hub, name: str, tmp_path: Path) -> datasets.Dataset:
    """The parquet that lies in a repository of a data set."""
    (tmp_path / "back.parquet").write_bytes(hub.commits[f"datasets/{name}"][-1][1][PARQUET])
    return datasets.Dataset.from_parquet(str(tmp_path / "back.parquet"), cache_dir=str(tmp_path / "cache"))


def test_a_bundle_decoded_to_a_data_set(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    pipe = DatasetSynthesisPipeline.from_pretrained(bundle)
    address = push_dataset_to_hub(pipe, "me/images")
    assert address.endswith(f"datasets/me/images/commit/{hub.commits['datasets/me/images'][-1][0]}")
    back, ours = read(hub, "me/images", tmp_path), pipe(output_type="pt")
    assert back.features["label"].names == list(SPEC.class_names)
    assert back["label"] == ours.labels.tolist()
    want = (ours.images * 255).round().to(torch.uint8).numpy()
    for image, level in zip(back["image"], want, strict=True):
        np.testing.assert_array_equal(np.asarray(image), level[0])
    card = hub.commits["datasets/me/images"][-1][1]["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit"
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "tiny, condensed with latentdc" in card
    assert "- data: tiny" in card
    assert "lines" not in card


def test_what_decode_wrote_is_uploaded_as_it_is(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    pipe = DatasetSynthesisPipeline.from_pretrained(bundle)
    pipe.to_parquet(tmp_path / "x.parquet", images_per_class=1)
    push_dataset_to_hub(tmp_path / "x.parquet", "me/parquet")
    assert len(read(hub, "me/parquet", tmp_path)) == 3
    (pipe.to_folder(tmp_path / "folder") / "run.py").write_text("raise SystemExit")
    push_dataset_to_hub(tmp_path / "folder", "me/set")
    files = hub.commits["datasets/me/set"][-1][1]
    assert sum(name.endswith(".png") for name in files) == 24
    assert {"metadata.jsonl", "README.md"} <= files.keys()
    assert "run.py" not in files
    push_dataset_to_hub(pipe.to_webdataset(tmp_path / "shards", images_per_class=1), "me/set")
    files = hub.commits["datasets/me/set"][-1][1]
    assert files.keys() == {".gitattributes", "README.md", "classes.json", "images-000000.tar"}
    with tarfile.open(fileobj=io.BytesIO(files["images-000000.tar"])) as tar:
        assert len(tar.getnames()) == 6
    (tmp_path / "shards" / "README.md").write_text("# Mine\n")
    push_dataset_to_hub(tmp_path / "shards", "me/set")
    assert hub.commits["datasets/me/set"][-1][1]["README.md"] == b"# Mine\n"


def test_the_command(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    assert f"uploaded: {hub.address}/me/set/commit/" in run("push", bundle, "me/set", "--private", "--message", "Hello")
    assert torch.equal(
        DatasetSynthesisPipeline.from_pretrained("me/set")(output_type="pt").images,
        DatasetSynthesisPipeline.from_pretrained(bundle)(output_type="pt").images,
    )
    told = json.loads(run("push", bundle, "me/set", "--dataset", "--images-per-class", 1, "--json"))
    assert (told["kind"], told["repository"]) == ("dataset", "me/set")
    assert len(read(hub, "me/set", tmp_path)) == 3
    tiny_decoder("gan").save_pretrained(tmp_path / "gan")
    run("push", tmp_path / "gan", "me/gan")
    assert "config.json" in hub.commits["me/gan"][-1][1]


def test_a_pipeline_of_diffusers_is_a_decoder(hub: Hub, tmp_path: Path, tiny_store: ClassStore) -> None:
    """It has an index as a bundle does: pushing and evaluating must not take it for one."""
    folder = pipeline(tmp_path / "pipe", diffusers.DDIMScheduler(clip_sample=False), unet=tiny_unet(3))
    run("push", folder, "me/pipe")
    assert {"model_index.json", "unet/config.json"} <= hub.commits["me/pipe"][-1][1].keys()
    assert CondensationPipeline.from_pretrained("me/pipe").decoder_reference["repo_id"] == "me/pipe"
    subject = subject_of(folder, tiny_store)
    assert subject.images.x.shape == tiny_store.images.shape
    assert subject.note == "every real image, encoded and decoded"


def test_the_card_of_a_decoder_of_ones_own_class(hub: Hub, tmp_path: Path) -> None:
    tiny_decoder("module").save_pretrained(tmp_path / "own")
    run("push", tmp_path / "own", "me/own", "--own", "own_generator:Generator")
    card = hub.commits["me/own"][-1][1]["README.md"].decode()
    assert "--decoder me/own --own own_generator:Generator" in card
    code = card.split("```python\n")[1].split("```")[0]
    assert "component_classes=[Generator]" in code
    made: dict[str, Any] = {}
    exec(code, made)  # It is what a reader would copy.
    assert made["pipe"].decoder.config["generator"] == "own_generator:Generator"


def test_a_hub_that_cannot_be_reached(hub: Hub, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Not listening: connections are refused.
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        for arguments in ([bundle, "me/x"], [bundle, "me/x", "--dataset"]):
            failed = CliRunner().invoke(app, ["push", *map(str, arguments)])
            assert failed.exit_code == 2, failed.output
            said = failed.stderr.splitlines()[-1]
            assert re.match(r'latentdc: error: "me/x": the Hub did not take it: .*refused\. Check the connection', said)
        failed = CliRunner().invoke(app, ["decode", "me/x", "--out", str(tmp_path / "out")])
        assert failed.exit_code == 2, failed.output
        assert failed.stderr.splitlines()[-1].startswith(
            'latentdc: error: "me/x" is no folder of a bundle, and the Hub'
        )


def test_refusals(hub: Hub, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, said in (
        ([tmp_path, "me/x"], "neither a bundle (no model_index.json) nor a decoder (no config.json or"),
        ([tmp_path / "nowhere", "me/x"], "nowhere: no such folder; give that of a bundle or a decoder"),
        ([tmp_path, "me/x", "--dataset"], "no data set to upload; give a bundle, or what `latentdc decode` wrote"),
        ([bundle, "me/x", "--images-per-class", 1], "a bundle is uploaded whole; it belongs to --dataset"),
        ([bundle, "a/b/c", "--dataset"], '"a/b/c": the Hub did not take it'),
    ):
        failed = CliRunner().invoke(app, ["push", *map(str, arguments)])
        assert failed.exit_code == 2, failed.output
        assert said in failed.stderr
        assert failed.stderr.splitlines()[-1].startswith("latentdc: error: ")
    assert not hub.commits
    with pytest.raises(InputError, match="images_per_class belongs to a bundle"):
        push_dataset_to_hub(tmp_path, "me/x", images_per_class=1)
    hub.read_only = True
    with pytest.raises(
        InputError, match=r'"me/x": the Hub did not take it: .*Check the connection, the name and the token'
    ):
        push_dataset_to_hub(bundle, "me/x")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"latentdc\[datasets\]"):
        push_dataset_to_hub(bundle, "me/x")
