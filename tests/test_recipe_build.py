"""From a recipe to parts, sources, banks, an identity and an estimate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.accelerator import Accelerator
from tiny_parts import tiny_decoder

from latentdc.checkpoint import Checkpoints
from latentdc.condense import condense
from latentdc.data.sources import open_data
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, RecipeError
from latentdc.recipe import Built, build, dry_run, identity, load_recipe, make_bank, make_source, parse_recipe
from latentdc.sketch import Sketch
from latentdc.source import Minibatches

TINY = {
    "images_per_class": 2,
    "steps": 3,
    "init": "real",
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6, "num_pairs": 2, "batch_size": 8},
}


def built(store: ClassStore, **changes: Any) -> Built:
    overrides = {name.replace("__", "."): value for name, value in changes.items()}
    return build(parse_recipe(TINY, overrides=overrides), store.spec)


@pytest.mark.parametrize("kind", ["minibatches", "sketch"])
@pytest.mark.parametrize("factor", [None, 2])
def test_recipe_runs_end_to_end(kind: str, factor: int | None, tiny_store: ClassStore) -> None:
    parts = built(tiny_store, source__kind=kind, formation=factor and {"kind": "tiles", "factor": factor})
    assert parts.counts == (2, 2, 2)
    source = make_source(parts, tiny_store, progress=False)
    assert isinstance(source, Sketch if kind == "sketch" else Minibatches)
    bank = make_bank(parts, tiny_store)
    before = bank.z["x"].detach().clone()
    condense(
        parts.decoder,
        bank,
        parts.objective,
        source,
        steps=parts.recipe.steps,
        optim=parts.recipe.optim,
        seed=parts.recipe.seed,
        accelerator=Accelerator(cpu=True),
        formation=parts.formation,
        progress=False,
    )
    assert not torch.equal(before, bank.z["x"])


def test_sketch_file_is_reused_and_checked(tiny_store: ClassStore, make_store: Any, tmp_path: Path) -> None:
    path = tmp_path / "sketch.safetensors"
    parts = built(tiny_store, source__kind="sketch")
    first = make_source(parts, tiny_store, out=path, progress=False)
    again = make_source(parts, tiny_store, out=path, progress=False)
    assert isinstance(first, Sketch)
    assert isinstance(again, Sketch)
    assert first.manifest == again.manifest
    given = make_source(built(tiny_store, source__num_pairs=5), tiny_store, given=path, progress=False)
    assert isinstance(given, Sketch)  # What is given replaces whatever the recipe names.
    with pytest.raises(InputError, match=r"source\.num_pairs is 5, was 2"):
        make_source(built(tiny_store, source__kind="sketch", source__num_pairs=5), tiny_store, out=path)
    with pytest.raises(InputError, match="taken for another objective"):
        make_source(built(tiny_store, objective__by="rff"), tiny_store, given=path)
    other = make_store(seed=5)
    with pytest.raises(InputError, match="taken of other data: its fingerprint"):
        make_source(built(other), other, given=path)


def test_parts_that_do_not_fit_are_refused(tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=r'or use one of .*rff.*\("rff" is the form of "mmd"'):
        built(tiny_store, source__kind="sketch", objective__by="mmd")
    with pytest.raises(RecipeError, match=r"formation: factor = 3 does not divide images of 8 x 8"):
        built(tiny_store, formation={"kind": "tiles", "factor": 3})
    with pytest.raises(InputError, match=r"--decoder pixels.*latentdc fit gan"):
        built(tiny_store, decoder="default")
    with pytest.raises(RecipeError, match=r'objective\.kind = "mach".*Did you mean "match"'):
        built(tiny_store, objective__kind="mach")


def test_a_decoder_is_named_as_any_machine_knows_it(
    tiny_store: ClassStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = tiny_decoder("gan")
    folder = tmp_path / "somewhere" / "my-gan"
    decoder.save_pretrained(folder)
    assert built(tiny_store).decoder_name == "pixels"
    mine = built(tiny_store, decoder=str(folder))
    assert mine.decoder_name.startswith("my-gan@sha256:")
    assert str(tmp_path) not in json.dumps([mine.recipe.flat(), identity(mine)])
    monkeypatch.chdir(folder)
    assert built(tiny_store, decoder=".").decoder_name == mine.decoder_name
    recipe = parse_recipe(TINY)
    assert build(recipe, tiny_store.spec, decoder=decoder).decoder_name.startswith("GanDecoder@sha256:")
    public = build(recipe, tiny_store.spec, decoder=decoder, decoder_name="owner/name@main")
    assert public.recipe.decoder == public.decoder_name == "owner/name@main"


def test_the_default_decoder_is_named_in_the_resolved_recipe() -> None:
    spec = open_data("fashion-mnist-mini").train.spec
    parts = build(load_recipe("dm-gan"), spec)
    assert parts.recipe.decoder == parts.decoder_name == "fashion-mnist-gan"
    assert identity(parts) == identity(build(load_recipe("dm-gan", overrides={"decoder": "fashion-mnist-gan"}), spec))


def test_identity_names_what_decides_a_step(tiny_store: ClassStore, make_store: Any, tmp_path: Path) -> None:
    parts = built(tiny_store)
    mine = identity(parts)
    json.dumps(mine)
    assert mine == identity(built(tiny_store, steps=99, title="renamed", compile=True))
    for change in ({"seed": 1}, {"objective__by": "energy"}, {"source__num_per_class": 5}, {"augment": "none"}):
        assert identity(built(tiny_store, **change)) != mine
    other = make_store(seed=5)
    assert identity(built(other))["data.fingerprint"] != mine["data.fingerprint"]
    upright = ClassStore(tiny_store.images, tiny_store.labels, replace(tiny_store.spec, mirror=False))
    assert identity(built(upright)) != mine, "the augmentation would mirror no longer"
    Checkpoints(tmp_path, mine).save(1, {}, {})
    with pytest.raises(InputError, match=r"objective\.by\.kind is 'energy', was 'mean'"):
        Checkpoints(tmp_path, identity(built(tiny_store, objective__by="energy"))).load()
    sketched = built(tiny_store, source__kind="sketch")
    source = make_source(sketched, tiny_store, progress=False)
    assert "source.sketch" in identity(sketched, source=source)


@pytest.mark.parametrize("kind", ["minibatches", "sketch"])
def test_dry_run_measures_and_adds_up(kind: str, tiny_store: ClassStore) -> None:
    parts = built(tiny_store, source__kind=kind, storage="int8", formation={"kind": "tiles", "factor": 2})
    told = dry_run(parts, tiny_store)
    json.dumps(told)
    assert told["rows_per_class"] == 2
    assert told["images_per_class"] == 8
    assert told["bytes_per_class"] == 2 * 64 + 4 + 4
    assert told["recipe"]["source.kind"] == kind
    assert told["step_seconds"] > 0
    assert told["total_seconds"] == pytest.approx(told["sketch_seconds"] + 3 * told["step_seconds"])
    assert (told["sketch_bytes"] > 0) == (kind == "sketch")
    after = told["sketch_bytes"] + told["checkpoint_bytes"] + told["bundle_bytes"]
    assert told["disk_bytes"] == max(2 * told["sketch_bytes"], after), "the pairs lie beside the sketch they make up"
    assert told["compile_seconds"] == 0
    assert told["peak_memory_bytes"] > 1e6


def test_dry_run_counts_compiling_once(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.0, 0.0, 31.0, 32.0, 33.0])  # two of them around what the pool trains ahead: nothing
    monkeypatch.setattr("latentdc.recipe.estimate.time.perf_counter", lambda: next(ticks))

    def condense(*_: Any, on_step: Any, **__: Any) -> None:
        for _step in range(3):
            on_step[0](None)

    monkeypatch.setattr("latentdc.recipe.estimate.condense", condense)
    told = dry_run(built(tiny_store, compile=True), tiny_store)
    assert (told["compile_seconds"], told["step_seconds"], told["total_seconds"]) == (30.0, 1.0, 33.0)


def test_dry_run_counts_the_pairs_beside_a_large_sketch(tiny_store: ClassStore) -> None:
    told = dry_run(built(tiny_store, source__kind="sketch", source__num_pairs=5000), tiny_store)
    assert told["disk_bytes"] == 2 * told["sketch_bytes"]
