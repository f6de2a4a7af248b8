"""Sketches on the command line, of folders that each have statistics of their own: merged, subtracted, held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from latentdc.bundle import load_bundle
from latentdc.cli.__main__ import app
from latentdc.data.sources import open_data
from latentdc.data.store import ClassStore
from latentdc.evaluate import evaluate
from latentdc.evaluate.protocols import Protocol
from latentdc.sketch import Sketch

SMALL = ("--set", "source.width=4", "--set", "objective.by.kind=rff", "--set", "objective.by.num=8")
RUN = (*SMALL, "--decoder", "pixels", "--images-per-class", 1, "--steps", 2)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="latentdc")


def run(*arguments: object) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.exception
    return result.stderr


def write(store: ClassStore, rows: range, folder: Path) -> Path:
    for number in rows:
        for cls in range(3):
            path = folder / str(cls + 1) / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(store.of_class(cls)[number][0].numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_store: Any) -> Path:
    """``whole`` is ``a`` and ``b`` together; sketches of all three, those of the parts taken like another."""
    root = tmp_path_factory.mktemp("sketches")
    store = make_store(10)
    for name, rows in {"whole": range(10), "a": range(4), "b": range(4, 10)}.items():
        write(store, rows, root / name)
    assert len({open_data(root / name).train.spec.mean for name in ("whole", "a", "b")}) == 3
    for name, like in {"whole": None, "a": None, "b": "a", "b-of-whole": "whole"}.items():
        told = ("--like", root / f"{like}.st") if like else ()
        folder = root / name.split("-")[0]
        run("sketch", "--data", folder, "--num-pairs", 2, *SMALL, *told, "--out", root / f"{name}.st")
    run("sketch", "merge", root / "a.st", root / "b.st", "--out", root / "a+b.st")
    run("sketch", "subtract", root / "whole.st", root / "b-of-whole.st", "--out", root / "whole-b.st")
    return root


@pytest.mark.parametrize(("data", "sketch"), [("whole", "a+b.st"), ("a", "whole-b.st"), ("b", "b.st")])
def test_merged_and_subtracted_sketches_condense(data: str, sketch: str, root: Path, tmp_path: Path) -> None:
    run("condense", "--data", root / data, "--sketch", root / sketch, *RUN, "--out", tmp_path / "out")
    made, real = load_bundle(tmp_path / "out"), open_data(root / data).train
    assert made.spec.fingerprint == real.spec.fingerprint
    assert made.spec.mean == real.spec.mean


def test_a_merged_sketch_of_other_images_is_refused(root: Path, tmp_path: Path) -> None:
    told = refused("condense", "--data", root / "a", "--sketch", root / "a+b.st", *RUN, "--out", tmp_path / "out")
    assert "its images per class is (10, 10, 10)" in told
    dark = tmp_path / "dark"
    for path in (root / "whole").rglob("*.png"):
        (dark / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).point(lambda value: value // 8).save(dark / path.parent.name / path.name)
    told = refused("condense", "--data", dark, "--sketch", root / "a+b.st", *RUN, "--out", tmp_path / "out")
    assert "its mean and std is" in told


def test_a_set_is_never_counted_twice(root: Path, tmp_path: Path) -> None:
    for one, other in (("a", "a"), ("a+b", "b")):
        told = refused("sketch", "merge", root / f"{one}.st", root / f"{other}.st", "--out", tmp_path / "twice.st")
        assert "was added already and would count twice" in told
    told = refused("sketch", "subtract", root / "whole-b.st", root / "b-of-whole.st", "--out", tmp_path / "twice.st")
    assert "which must be part of it" in told
    assert not (tmp_path / "twice.st").exists()


def test_what_is_added_and_subtracted_leaves_no_trace(root: Path, tmp_path: Path) -> None:
    run("sketch", "subtract", root / "a+b.st", root / "a.st", "--out", tmp_path / "b.st")
    left, alone = Sketch.load(tmp_path / "b.st"), Sketch.load(root / "b.st")
    assert left.manifest.history == alone.manifest.history
    assert (left.spec.name, left.spec.fingerprint) == ("b", alone.spec.fingerprint)
    run("condense", "--data", root / "b", "--sketch", tmp_path / "b.st", *RUN, "--out", tmp_path / "out")


def test_no_sketch_is_overwritten(root: Path) -> None:
    before = (root / "whole.st").read_bytes()
    for command in (
        ("merge", root / "a.st", root / "b.st"),
        ("subtract", root / "a+b.st", root / "a.st"),
        ("--data", root / "a", "--num-pairs", 2, *SMALL),
    ):
        told = refused("sketch", *command, "--out", root / "whole.st")
        assert "whole.st exists already. Delete it, or choose another --out." in told
    assert (root / "whole.st").read_bytes() == before


def test_like_must_be_taken_alike(root: Path, tmp_path: Path) -> None:
    told = refused("sketch", "--data", root / "b", "--like", root / "a.st", *SMALL, "--out", tmp_path / "b.st")
    assert "num_pairs = 2 instead of 60" in told
    assert not list(tmp_path.iterdir())


def test_a_projected_sketch_is_smaller_and_condensed_from_alike(root: Path, tmp_path: Path) -> None:
    taking = ("sketch", "--data", root / "a", "--num-pairs", 2, "--set", "source.width=8")
    for name, told in {"all": (), "short": ("--project", 4), "long": ("--set", "objective.see.project=4")}.items():
        run(*taking, *told, "--out", tmp_path / f"{name}.st")
    whole, short, long = (Sketch.load(tmp_path / f"{name}.st") for name in ("all", "short", "long"))
    assert short.manifest.digest() == long.manifest.digest()
    assert (whole.sums[0].shape[-1], short.sums[0].shape[-1]) == (8, 4)
    told = ("condense", "--data", root / "a", "--sketch", tmp_path / "short.st", "--set", "source.width=8", *RUN[-6:])
    assert "project" in refused(*told, "--out", tmp_path / "no")
    run(*told, "--project", 4, "--out", tmp_path / "out")
    assert "project = 4" in load_bundle(tmp_path / "out").provenance["recipe_toml"]


KINDS = {
    "gradients": ("--set", "objective.see=gradients", "--set", "objective.by=cosine"),
    "landmarks": ("--set", "objective.by=energy", "--set", "source.landmarks=2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_landmarks_end_to_end(kind: str, root: Path, tmp_path: Path) -> None:
    sketch, told = tmp_path / "a.st", ("--data", root / "a", "--set", "source.width=4", *KINDS[kind])
    taken = invoke("sketch", *told, "--num-pairs", 2, "--out", sketch, "--json")
    num_bytes = json.loads(taken.stdout)["num_bytes"]
    assert f"the sketch will take {num_bytes:,} bytes" in taken.stderr
    shown = " ".join(invoke("inspect", sketch).stdout.split())
    rows = {"gradients": "Gradients by Cosine sums 2 x 3 x 4 x 9, ", "landmarks": "Energy landmarks 2 x 3 x 2 x "}
    assert rows[kind] in shown
    budget = ("--decoder", "pixels", "--images-per-class", 2, "--steps", 2)
    run("condense", *told, "--sketch", sketch, *budget, "--out", tmp_path / "out")
    provenance = load_bundle(tmp_path / "out").provenance
    assert provenance["sketch"] == Sketch.load(sketch).manifest.digest()
    assert ("landmarks = 2" in provenance["recipe_toml"]) == (kind == "landmarks")
    if kind == "landmarks":
        plain = refused("condense", "--data", root / "a", "--sketch", sketch, *budget, "--out", tmp_path / "no")
        assert 'landmarks for Energy, and objective.by = "mean" takes sums' in plain


def test_settings_can_be_chosen_on_held_out_images(root: Path, tmp_path: Path) -> None:
    whole, sketch = root / "whole", tmp_path / "rest.st"
    run("sketch", "--data", whole, "--hold-out", "--num-pairs", 2, *SMALL, "--out", sketch)
    assert Sketch.load(sketch).counts[0].tolist() == [9, 9, 9]
    run("condense", "--data", whole, "--hold-out", "--sketch", sketch, *RUN, "--out", tmp_path / "fair")
    run("condense", "--data", whole, "--sketch", root / "whole.st", *RUN, "--out", tmp_path / "unfair")
    assert "fingerprint" in refused("condense", "--data", whole, "--sketch", sketch, *RUN, "--out", tmp_path / "no")
    protocol = Protocol("tiny", epochs=1)
    notes = {
        name: evaluate(
            tmp_path / name, open_data(whole), protocol, seeds=1, width=4, baselines=(), split="held-out"
        ).notes
        for name in ("fair", "unfair")
    }
    assert not any("bundle was condensed" in note for note in notes["fair"])
    assert any("no fair selection" in note for note in notes["unfair"])


def test_digits_are_never_mirrored(root: Path, tmp_path: Path) -> None:
    sketch, whole = tmp_path / "plain.st", root / "whole"
    run("sketch", "--data", whole, "--no-mirror", "--num-pairs", 2, *SMALL, "--out", sketch)
    taken = Sketch.load(sketch)
    assert not taken.spec.mirror
    assert "flip" in Sketch.load(root / "whole.st").manifest.augment["strategy"]
    assert "flip" not in taken.manifest.augment["strategy"]
    run("condense", "--data", whole, "--no-mirror", "--sketch", sketch, *RUN, "--out", tmp_path / "out")
    assert not load_bundle(tmp_path / "out").spec.mirror
    told = refused("condense", "--data", whole, "--sketch", sketch, *RUN, "--out", tmp_path / "no")
    assert "its mirror is False" in told


def test_a_class_is_known_by_its_name_before_its_number(root: Path, tmp_path: Path) -> None:
    run("condense", "--data", root / "whole", "--sketch", root / "whole.st", *RUN, "--out", tmp_path / "out")
    for wanted, found in (("1", ["1"]), ("0", ["1"]), ("3,2", ["2", "3"])):
        run("decode", tmp_path / "out", "--classes", wanted, "--out", tmp_path / wanted)
        assert sorted(path.name for path in (tmp_path / wanted).iterdir() if path.is_dir()) == found
    assert open_data(root / "whole", classes=["2", "0"]).train.spec.class_names == ("2", "1")
    assert open_data(root / "whole", classes=[2, 0]).train.spec.class_names == ("3", "1")
    assert "class subset is empty" in refused("decode", tmp_path / "out", "--classes", ",", "--out", tmp_path / "none")
    assert "no such class" in refused("decode", tmp_path / "out", "--classes", "4", "--out", tmp_path / "four")


def test_a_folder_is_evaluated_at_the_size_of_the_data(root: Path, tmp_path: Path) -> None:
    cheap = ("--protocol", "quick", "--seeds", 1, "--width", 4, "--baselines", "random-real", "--split", "held-out")
    told = ("evaluate", root / "a", "--data", root / "whole", "--size", 12, *cheap)
    run(*told, "--out", tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["bytes"]["pixels_uint8"] == 4 * 3 * 144
