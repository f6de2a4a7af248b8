"""Bundles: the round trip, what is refused and how the refusal reads, and what a bundle costs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import SPEC, tiny_bank, tiny_decoder, tiny_formation, write_bundle

from latentdc.bundle import attach_report, load_bundle, requantise, save_bundle, saving
from latentdc.decoders.components import WEIGHTS, sha256_of
from latentdc.errors import BundleError, InputError
from latentdc.latents import decode


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def reseal(folder: Path) -> None:
    """Make the manifest agree with the files, as a careful forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: sha256_of(folder / name) for name in manifest["files"] if (folder / name).exists()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("storage", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("formation", [None, "tiles"])
def test_round_trip_is_bit_equal(tmp_path: Path, storage: str, formation: str | None) -> None:
    decoder = tiny_decoder("gan")
    bank = tiny_bank(decoder, extras=True).quantise(storage)
    parts = {"bank": bank, "decoder": decoder, "formation": tiny_formation(formation)}
    facts = {
        "hints": {"augment": "dsa"},
        "report": {"rows": [1.5]},
        "decoder_public": "tiny-gan",
        "raw_set_bytes": 6500,
    }
    save_bundle(tmp_path / "b", spec=SPEC, provenance={"seed": 7}, **parts, **facts)
    back = load_bundle(tmp_path / "b")
    for name, value in bank.state_dict().items():
        assert torch.equal(back.bank.state_dict()[name], value)
        assert back.bank.state_dict()[name].dtype == value.dtype
    before = decode(decoder, bank, formation=parts["formation"])
    after = decode(back.decoder, back.bank, formation=back.formation)
    for ours, theirs in zip(before, after, strict=True):
        assert torch.equal(ours, theirs)
    assert (back.spec, back.hints, back.report) == (SPEC, facts["hints"], facts["report"])
    assert (back.decoder_public, back.raw_set_bytes, back.provenance["seed"]) == ("tiny-gan", 6500, 7)
    assert {"latentdc", "python", "torch", "diffusers"} == back.provenance["versions"].keys()
    assert not any(parameter.requires_grad for parameter in back.decoder.parameters())
    assert not any(module.training for part in (back.bank, back.decoder) for module in part.modules())


def test_no_machine_path_is_stored(tmp_path: Path, bundle: Path) -> None:
    again = load_bundle(bundle)
    save_bundle(tmp_path / "again", bank=again.bank, decoder=again.decoder, spec=SPEC, provenance={})
    for path in (tmp_path / "again").rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()


def flip(folder: Path) -> None:
    path = folder / "bank" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def drop_weight(folder: Path) -> None:
    path = folder / "decoder" / WEIGHTS
    state = load_file(path)
    del state["embed.weight"]
    save_file(state, path, {"format": "pt"})
    reseal(folder)


def extra_weight(folder: Path) -> None:
    path = folder / "decoder" / WEIGHTS
    save_file({**load_file(path), "backdoor": torch.ones(1)}, path, {"format": "pt"})
    reseal(folder)


def wrong_shape(folder: Path) -> None:
    edit_json(folder / "bank" / "config.json", lambda config: config.update(counts=[1, 1, 2]))
    reseal(folder)


def pickled(folder: Path) -> None:
    path = folder / "bank" / WEIGHTS
    torch.save(load_file(path), path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()
    edit_json(folder / "manifest.json", lambda manifest: manifest["files"].pop(f"bank/{WEIGHTS}"))


def only_pickled(folder: Path) -> None:
    pickled(folder)
    edit_json(
        folder / "manifest.json",
        lambda manifest: manifest["files"].update({"bank/diffusion_pytorch_model.bin": "0"}),
    )
    reseal(folder)


def outside(folder: Path) -> None:
    (folder.parent / "elsewhere.json").write_text("{}")
    edit_json(folder / "manifest.json", lambda manifest: manifest["files"].update({"../elsewhere.json": "0"}))


def unknown_class(folder: Path) -> None:
    edit_json(folder / "model_index.json", lambda index: index.update(decoder=["modeling_evil", "Evil"]))
    reseal(folder)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip, r"bank/diffusion_pytorch_model.safetensors is damaged or was edited: its sha256 is"),
    "edited code": (
        lambda f: next(f.glob("pipeline_*.py")).write_text("1"),
        r"pipeline_\w{8}.py is damaged or was edi",
    ),
    "missing file": (lambda f: (f / "decoder" / "config.json").unlink(), "decoder/config.json is missing; copy or"),
    "missing weight": (drop_weight, "missing weights for GanDecoder: embed.weight"),
    "unexpected weight": (extra_weight, "unexpected weights for GanDecoder: backdoor"),
    "wrong shape": (wrong_shape, "cannot be loaded as LatentBank"),
    "added code": (lambda f: (f / "setup.py").write_text(""), "setup.py was added after the bundle was written"),
    "added component file": (lambda f: (f / "bank" / "notes").write_text(""), "bank/notes was added after"),
    "pickle beside": (pickled, "bank/diffusion_pytorch_model.bin was added after"),
    "pickle instead": (only_pickled, "reads safetensors only, never pickled weights"),
    "unknown version": (
        lambda f: edit_json(f / "manifest.json", lambda manifest: manifest.update(version=99)),
        "bundle version 99 is unknown; this latentdc reads version 1",
    ),
    "other format": (
        lambda f: edit_json(f / "manifest.json", lambda manifest: manifest.update(format="zip")),
        "says format 'zip', not 'latentdc-bundle'",
    ),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
    "broken manifest": (lambda f: (f / "manifest.json").write_text("{"), "cannot be read as JSON"),
    "empty manifest": (
        lambda f: edit_json(f / "manifest.json", lambda manifest: manifest.update(files={})),
        "lists no model_index.json and provenance.json",
    ),
    "path outside": (outside, "../elsewhere.json, which lies outside the folder"),
    "unknown class": (unknown_class, "its decoder is a Evil, a class that latentdc does not have"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, bundle: Path) -> None:
    harm, message = REFUSED[case]
    load_bundle(bundle)
    harm(bundle)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle)
    assert str(bundle) in str(caught.value)


def test_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; give the folder of a bundle"):
        load_bundle(tmp_path / "none")


def test_harmless_neighbours_are_left_alone(bundle: Path) -> None:
    (bundle / "grid.png").write_bytes(b"\x89PNG")
    (bundle / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert load_bundle(bundle).bank.num_rows == 6


def test_loading_runs_no_code_of_the_folder(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = tmp_path / "modules"
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(modules))
    scripts = list(bundle.rglob("*.py"))
    for script in scripts:
        script.write_text(
            f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise RuntimeError('code of the folder ran')\n"
        )
    reseal(bundle)
    assert len(scripts) == 4
    assert load_bundle(bundle).bank.num_rows == 6
    assert not (tmp_path / "ran").exists()
    assert not modules.exists()


@pytest.mark.parametrize(("storage", "tolerance"), [("fp16", 2e-3), ("int8", 2e-2), ("int4", 0.3)])
def test_requantise(tmp_path: Path, bundle: Path, storage: str, tolerance: float) -> None:
    attach_report(bundle, {"rows": []})
    before, after = load_bundle(bundle), load_bundle(requantise(bundle, tmp_path / "small", storage))
    assert after.bank.storage == storage
    assert after.provenance["requantised_from"] == "fp32"
    assert after.report is None
    assert after.storage.payload < before.storage.payload
    error = (before.bank.latents()["z"] - after.bank.latents()["z"]).abs().max()
    assert 0 < error < tolerance * before.bank.latents()["z"].abs().max()
    with pytest.raises(InputError, match='storage = "int2": known are fp32, fp16, int8, int4'):
        requantise(bundle, tmp_path / "x", "int2")


def test_requantise_in_place(bundle: Path) -> None:
    requantise(bundle, bundle, "int8")
    assert load_bundle(bundle).bank.storage == "int8"
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_attached_report_is_checked_too(bundle: Path) -> None:
    attach_report(bundle, {"rows": [1]})
    attach_report(bundle, {"rows": [2]})
    assert load_bundle(bundle).report == {"rows": [2]}
    (bundle / "report.json").write_text('{"rows": [99]}')
    with pytest.raises(BundleError, match=r"report.json is damaged or was edited"):
        load_bundle(bundle)


def test_card_tells_the_facts(bundle: Path) -> None:
    text, files = (bundle / "README.md").read_text(), json.loads((bundle / "manifest.json").read_text())["files"]
    assert text.startswith("---\nlibrary_name: diffusers\n")
    for part in ("trust_remote_code=True", "boot, coat, bag", "6 latents (fp32)", SPEC.fingerprint, "| seed | 7 |"):
        assert part in text
    for script in (name for name in files if name.endswith(".py")):
        assert f"`{script}`" in text
    every = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert every - {"manifest.json"} == files.keys()


def test_a_failed_save_leaves_the_old_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(saving, "_write_manifest", full)
    with pytest.raises(OSError, match="no space left"):
        write_bundle(bundle, storage="int8")
    assert load_bundle(bundle).bank.storage == "fp32"
    assert os.listdir(bundle.parent) == ["bundle"]


def test_writes_over_a_bundle_but_nothing_else(tmp_path: Path, bundle: Path) -> None:
    assert load_bundle(write_bundle(bundle, storage="int8")).bank.storage == "int8"
    taken = tmp_path / "thesis"
    taken.mkdir()
    (taken / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is no bundle; give an empty or new folder"):
        write_bundle(taken)
    (taken / "manifest.json").write_text('{"name": "a web application"}')
    with pytest.raises(InputError, match="exists and is no bundle"):
        write_bundle(taken)
    assert (taken / "chapter.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="is a file; give a folder"):
        write_bundle(taken / "chapter.txt")


def test_parts_must_fit(tmp_path: Path) -> None:
    gan, pixels = tiny_decoder("gan"), tiny_decoder("pixels")
    facts: dict[str, Any] = {"spec": SPEC, "provenance": {}}
    with pytest.raises(InputError, match=re.escape("latents of the bank: {'x': (1, 8, 8)}, but latents the decoder")):
        save_bundle(tmp_path / "b", bank=tiny_bank(pixels), decoder=gan, **facts)
    with pytest.raises(InputError, match="classes of the bank: 2, but classes of the data: 3"):
        save_bundle(tmp_path / "b", bank=tiny_bank(gan, [1, 1]), decoder=gan, **facts)
    with pytest.raises(InputError, match="a Linear cannot be stored"):
        save_bundle(tmp_path / "b", bank=tiny_bank(gan), decoder=gan, formation=torch.nn.Linear(1, 1), **facts)
    with pytest.raises(InputError, match="give strings, finite numbers, lists and dicts only"):
        save_bundle(tmp_path / "b", bank=tiny_bank(gan), decoder=gan, spec=SPEC, provenance={"loss": float("nan")})
    sick = tiny_bank(gan)
    sick.z["z"].data[0, 0] = float("nan")
    with pytest.raises(InputError, match="latents z hold NaN or infinite numbers"):
        save_bundle(tmp_path / "b", bank=sick, decoder=gan, **facts)
    assert not (tmp_path / "b").exists()
