"""``evaluate`` from end to end on tiny sets: bundles, folders and stores, splits, seeds, resuming."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from latentdc.bundle import Bundle, load_bundle, save_bundle
from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import DataError, InputError
from latentdc.evaluate import PROTOCOLS, Protocol, Report, evaluate
from latentdc.evaluate.sets import of_store, subject_of
from latentdc.evaluate.training import Settings, Task, train_run
from latentdc.pipelines import export
from latentdc.portable.bank import LatentBank
from latentdc.portable.pipeline import DatasetSynthesisOutput
from latentdc.portable.pixels import PixelsDecoder

SHORT = dataclasses.replace(PROTOCOLS["quick"], name="short", epochs=3)


@pytest.fixture
def data(tiny_store: ClassStore, tiny_test_store: ClassStore) -> Data:
    return Data(tiny_store, tiny_test_store)


@pytest.fixture
def bundle(tiny_store: ClassStore, tmp_path: Path) -> Path:
    spec = tiny_store.spec
    decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)
    rows = torch.cat([tiny_store.of_class(c)[:1] for c in range(3)]).float() / 255
    bank = LatentBank.of(decoder.encode(rows), (1, 1, 1))
    save_bundle(tmp_path / "set", bank=bank, decoder=decoder, spec=spec, provenance={"seed": 0})
    return tmp_path / "set"


def measure(
    source: str | Path | Bundle | ClassStore, data: Data, *, protocol: Protocol = SHORT, **changes: object
) -> Report:
    settings = {"seeds": 2, "width": 8, "progress": False} | changes
    return evaluate(source, data, protocol, **settings)  # type: ignore[arg-type]


def write_folder(store: ClassStore, root: Path) -> Path:
    for c, name in enumerate(store.spec.class_names):
        (root / name).mkdir(parents=True)
        for i, image in enumerate(store.of_class(c)):
            Image.fromarray(image[0].numpy()).save(root / name / f"{i}.png")
    return root


def test_bundle_beside_its_baselines(bundle: Path, data: Data) -> None:
    report = measure(bundle, data)
    assert [row.name for row in report.rows if row.basis == "equal-images"] == [
        "bundle",
        "random-real",
        "medoids",
        "undistilled",
    ]
    assert {row.num_runs for row in report.rows} == {2}
    assert report.seeds == (0, 1)
    assert report.num_classes == 3
    assert report.protocol == SHORT.to_dict()
    assert report.fingerprint == data.train.spec.fingerprint
    assert report.bytes["latents"] == 3 * 64 * 4
    assert report.bytes["raw_set"] == 36 * 64 + 36, "a byte a pixel and one for the label"
    assert Report.from_json(report.to_json()) == report
    gain = report.gains[0]
    ours, random = report.rows[0].accuracy_mean, report.rows[1].accuracy_mean
    assert gain.gain_over_random == pytest.approx((ours - random) / 100)


def test_same_seeds_same_accuracies_and_students_are_separate(bundle: Path, data: Data) -> None:
    one = measure(bundle, data, baselines=(), students=("mlp", "convnet"))
    two = measure(bundle, data, baselines=(), students=("convnet",))
    assert [row.student for row in one.rows] == ["mlp", "convnet"]
    assert [run.accuracy for run in one.rows[1].runs] == [run.accuracy for run in two.rows[0].runs]
    assert one.rows[0].runs != one.rows[1].runs


def test_a_log_holds_runs_of_the_same_normalisation_alone(data: Data, tmp_path: Path) -> None:
    train = data.train
    other = ClassStore(train.images, train.labels, dataclasses.replace(train.spec, mean=(0.0,), std=(3.0,)))
    log = tmp_path / "runs.jsonl"
    for real, lines in ((train, 2), (train, 2), (other, 4)):
        measure(
            real.limit(1), Data(real, data.test), protocol=dataclasses.replace(SHORT, epochs=1), baselines=(), runs=log
        )
        assert len(log.read_text().splitlines()) == lines


def test_gains_of_soft_labels_are_without_a_hard_label_part(bundle: Path, data: Data) -> None:
    soft = load_bundle(bundle)
    hard = measure(soft, data, baselines=("random-real",), seeds=1, full_accuracy=90.0)
    y = torch.full((3, 3), 0.2) + 0.4 * torch.eye(3)
    bank = LatentBank.of(soft.bank.latents(), soft.bank.counts, y=y)
    mixed = measure(dataclasses.replace(soft, bank=bank), data, baselines=("random-real",), seeds=1, full_accuracy=90.0)
    assert [report.gains[0].computed for report in (hard, mixed)] == ["0.5 IOR - 0.5 HLR", "IOR"]
    assert [any("labels are soft" in note for note in report.notes) for report in (hard, mixed)] == [False, True]


def test_a_folder_of_images_equals_the_store_it_came_from(data: Data, tmp_path: Path) -> None:
    part = data.train.subset([0, 1, 12, 24])
    folder = write_folder(part, tmp_path / "images")
    from_folder, from_store = (measure(source, data, baselines=()) for source in (folder, part))
    assert from_folder.source_sha256 == from_store.source_sha256
    assert [r.accuracy for r in from_folder.rows[0].runs] == [r.accuracy for r in from_store.rows[0].runs]
    assert from_folder.rows[0].bytes_per_class == pytest.approx((4 * 64 + 12) / 3)
    assert from_folder.bytes["pixels_uint8"] == 4 * 64


def test_folder_has_no_undistilled_row(data: Data, tmp_path: Path) -> None:
    folder = write_folder(data.train.limit(1), tmp_path / "images")
    report = measure(folder, data, seeds=1, protocol=dataclasses.replace(SHORT, epochs=1))
    assert [row.name for row in report.rows] == ["bundle", "random-real", "medoids"]
    assert any(note.startswith("undistilled left out") for note in report.notes)


def test_classes_and_shapes_must_fit(data: Data, tmp_path: Path) -> None:
    folder = write_folder(data.train.limit(1), tmp_path / "images")
    (folder / "class-2").rename(folder / "other")
    with pytest.raises(DataError, match=r'"images" lacks class-2 and has other.*class-0, class-1, class-2'):
        measure(folder, data)
    (folder / "other").rename(folder / "Class_2")
    assert measure(folder, data, baselines=(), seeds=1).num_classes == 3
    for path in folder.rglob("*.png"):
        Image.open(path).resize((16, 16)).save(path)
    with pytest.raises(DataError, match=r"\(1, 16, 16\).*\(1, 8, 8\)"):
        measure(folder, data)


@pytest.mark.parametrize("names", [("C", "C++", "C#"), ("a/b", "a:b", "a_b"), ("c", "C", "c.")])
def test_decoded_classes_find_their_names_again(names: tuple[str, ...], data: Data, tmp_path: Path) -> None:
    spec = dataclasses.replace(data.train.spec, class_names=names)
    store = ClassStore(data.train.images, data.train.labels, spec)
    order = torch.arange(len(store)).flip(0)
    decoded = DatasetSynthesisOutput(
        images=[Image.fromarray(store.images[i][0].numpy()) for i in order], labels=store.labels[order]
    )
    folder = export.write_folder(tmp_path / "decoded", [decoded], names)
    images = subject_of(folder, store).images
    assert images.owner.tolist() == store.labels.tolist()
    for cls in range(3):
        assert torch.equal(images.x[images.owner == cls], store.of_class(cls).flip(0))


def test_classes_that_cannot_be_told_apart_are_named(data: Data) -> None:
    train = data.train

    def named(*names: str) -> ClassStore:
        return ClassStore(train.images, train.labels, dataclasses.replace(train.spec, class_names=names))

    with pytest.raises(DataError, match=r'its classes c_, c~ is which of C\+\+, C# in tiny.*all are "c"'):
        subject_of(named("c_", "c~", "C"), named("C", "C++", "C#"))
    assert subject_of(named("C#", "c_", "C"), named("C", "C++", "C#")).images.owner.tolist()[-1] == 2
    with pytest.raises(DataError, match=r"has c_, which the data has not"):
        subject_of(named("C", "c_", "D"), named("C", "D", "E"))


def test_mirroring_on_one_side_only_is_noted(bundle: Path, data: Data) -> None:
    train = data.train
    upright = ClassStore(train.images, train.labels, dataclasses.replace(train.spec, mirror=False))
    short = {"baselines": (), "seeds": 1, "protocol": dataclasses.replace(SHORT, epochs=1)}
    noted = measure(bundle, Data(upright, data.test), **short).notes
    assert "the bundle was condensed without --no-mirror, its students are trained with it" in noted
    assert not any("mirror" in note for note in measure(bundle, data, **short).notes)


def test_held_out_split_never_shows_test_or_held_out_images(bundle: Path, data: Data) -> None:
    kept, held = data.train.holdout()
    report = measure(bundle, Data(data.train, None), split="held-out", baselines=("random-real",), seeds=1)
    assert report.split == "held-out"
    assert report.fingerprint == kept.spec.fingerprint != data.train.spec.fingerprint
    assert any("held-out ones too" in note for note in report.notes)
    step = 100 / len(held)
    assert report.rows[0].runs[0].accuracy / step == pytest.approx(round(report.rows[0].runs[0].accuracy / step))
    with pytest.raises(DataError, match="no test images"):
        measure(bundle, Data(data.train, None))


def test_finished_runs_are_not_trained_again(
    bundle: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "out" / "runs.jsonl"
    first = measure(bundle, data, runs=log)
    lines = log.read_text().splitlines()
    assert len(lines) == sum(row.num_runs for row in first.rows)
    assert json.loads(lines[0])["row"] == "bundle"
    torn = "\n".join([*lines[:3], lines[3][:20]])
    log.write_text(torn)
    resumed = measure(bundle, data, runs=log)
    accuracies = [[run.accuracy for run in row.runs] for row in resumed.rows]
    assert accuracies == [[run.accuracy for run in row.runs] for row in first.rows]
    assert log.read_text().startswith(torn + "\n")
    assert len(log.read_text().splitlines()) == len(lines) + 1

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("latentdc.evaluate.runs.train_run", refuse)
    assert measure(bundle, data, runs=log).rows == resumed.rows
    with pytest.raises(AssertionError, match="trained again"):
        measure(bundle, data, runs=log, precision="bf16")
    with pytest.raises(AssertionError, match="trained again"):
        measure(bundle, data, runs=log, protocol=dataclasses.replace(SHORT, lr=0.02))
    train = data.train
    upright = ClassStore(train.images, train.labels, dataclasses.replace(train.spec, mirror=False))
    with pytest.raises(AssertionError, match="trained again"):
        measure(bundle, Data(upright, data.test), runs=log)


def test_a_student_is_judged_on_further_images_without_being_trained_again(
    bundle: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = Data(data.train.holdout()[0], data.test)
    alone = measure(bundle, apart)
    assert data.test is not None
    both = measure(bundle, data, split="held-out", also_on=[data.test], runs=tmp_path / "runs.jsonl")
    monkeypatch.setattr("latentdc.evaluate.runs.train_run", None)
    again = measure(bundle, apart, runs=tmp_path / "runs.jsonl")
    found, wanted = ([[run.accuracy for run in row.runs] for row in r.rows] for r in (again, alone))
    assert found == wanted != [[run.accuracy for run in row.runs] for row in both.rows]
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * sum(row.num_runs for row in both.rows)
    with pytest.raises(InputError, match="also_on without runs"):
        measure(bundle, apart, also_on=[data.test])
    with pytest.raises(DataError, match=r"also_on: .* has other classes or image shapes"):
        measure(bundle, apart, also_on=[data.test.choose([0, 1])], runs=tmp_path / "runs.jsonl")


class OneThread(ThreadPoolExecutor):
    """Stands for the pool of processes, whose start takes seconds."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(1)


@pytest.mark.parametrize("pool", [OneThread, pytest.param(None, marks=pytest.mark.slow)])
def test_workers_find_what_one_process_finds(
    bundle: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: type[ThreadPoolExecutor] | None
) -> None:
    settings = {"baselines": ("random-real",), "seeds": 2}
    one = measure(bundle, data, **settings)
    if pool is not None:
        monkeypatch.setattr("latentdc.evaluate.parallel.ProcessPoolExecutor", pool)
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    two = measure(bundle, data, workers=2, runs=tmp_path / "runs.jsonl", **settings)
    found, wanted = ([[(run.seed, run.accuracy) for run in row.runs] for row in r.rows] for r in (two, one))
    assert found == wanted
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == sum(row.num_runs for row in two.rows)


def test_training_learns(data: Data) -> None:
    easy = dataclasses.replace(SHORT, epochs=60, lr=0.1, strategy="color")
    assert data.test is not None
    task = Task(of_store(data.train), (data.test, data.train), data.train.spec, student="mlp", seed=0)
    run, seen = train_run(task, Settings(easy, width=16))
    assert min(run.accuracy, seen.accuracy) > 90
    assert (run.num_images, run.epochs) == (36, 60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": ()}, "no students"),
        ({"students": ("convnets",)}, 'Did you mean "convnet"'),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": (1, 1)}, "different seeds"),
        ({"precision": "fp8"}, "precision"),
        ({"split": "train"}, "held-out"),
        ({"full_accuracy": 101.0}, "per cent"),
        ({"full_accuracy": 90.0, "students": ("mlp", "convnet")}, r"one student, and there are 2 \(mlp, convnet\)"),
        ({"workers": 0}, "workers = 0"),
    ],
)
def test_wrong_settings(bundle: Path, data: Data, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(bundle, data, **changes)
