"""Protocols, medoids, DD-Ranking's score and the report records, each against what it promises."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

import latentdc
from latentdc.clusters import kmeans, medoids
from latentdc.data.cut_mix import CutMix
from latentdc.errors import InputError
from latentdc.evaluate import compare
from latentdc.evaluate.ddranking import label_robust_score, score
from latentdc.evaluate.protocols import PROTOCOLS, Protocol, find_protocol
from latentdc.evaluate.records import Gain, Machine, Report, Row, Run
from latentdc.types import DataSpec

FROZEN = {
    "dsa-1000": (1000, None, 256, 0.01, 0.9, 5e-4, 0.1, "color_crop_cutout_flip_scale_rotate"),
    "quick": (300, None, 256, 0.01, 0.9, 5e-4, 0.1, "color_crop_cutout_flip_scale_rotate"),
    "dc-300": (300, None, 256, 0.01, 0.9, 5e-4, 0.1, "none"),
    "dsa-150k": (1000, 150_000, 256, 0.01, 0.9, 5e-4, 0.1, "color_crop_cutout_flip_scale_rotate"),
    "whole-20": (20, None, 256, 0.01, 0.9, 5e-4, 0.1, "color_crop_cutout_flip_scale_rotate"),
    "idc-1000": (1000, None, 64, 0.01, 0.9, 5e-4, 0.2, "color_crop_flip_scale_rotate", "I", (2 / 3, 5 / 6), 0.5),
}
"""A named protocol never changes: another one gets another name."""


def test_protocols_are_frozen() -> None:
    assert {name: tuple(p.to_dict().values())[1:] for name, p in PROTOCOLS.items()} == FROZEN
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["quick"].epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "num_images", "epochs"),
    [
        ("dsa-1000", 10, 1000),
        ("dsa-1000", 5000, 1000),
        ("quick", 10, 300),
        ("dsa-150k", 10, 1000),
        ("dsa-150k", 150, 1000),
        ("dsa-150k", 480, 312),
        ("dsa-150k", 200_000, 1),
    ],
)
def test_epochs(name: str, num_images: int, epochs: int) -> None:
    spec = PROTOCOLS[name].train_spec(num_images)
    assert spec.epochs == epochs
    assert spec.renewed_after == epochs // 2 + 1
    assert (spec.lr, spec.momentum, spec.weight_decay, spec.batch_size, spec.decay_factor) == (
        0.01,
        0.9,
        5e-4,
        256,
        0.1,
    )


def test_idc_protocol_steps_its_rate_and_mixes() -> None:
    idc = PROTOCOLS["idc-1000"]
    spec = idc.train_spec(40)
    assert (spec.passes, spec.renewed_after, spec.milestones) == (1000, None, (666, 833))
    assert idc.mixer() == CutMix(0.5)
    assert PROTOCOLS["quick"].mixer() is None


def test_dc_protocol_shows_images_as_they_are() -> None:
    spec = DataSpec((1, 28, 28), ("a", "b"), (0.5,), (0.25,))
    images = torch.rand(4, 1, 28, 28)
    plain, augmented = PROTOCOLS["dc-300"], PROTOCOLS["quick"]
    assert torch.equal(plain.augmenter(spec)(images, torch.Generator().manual_seed(0)), images)
    assert not torch.equal(augmented.augmenter(spec)(images, torch.Generator().manual_seed(0)), images)
    assert (plain.strategy_for(spec), augmented.strategy_for(spec)) == ("none", augmented.strategy)


def test_unknown_protocol() -> None:
    with pytest.raises(InputError, match='Did you mean "dsa-1000"'):
        find_protocol("dsa-100")
    with pytest.raises(InputError, match="epochs = 0"):
        Protocol("none", epochs=0)


def test_augmentation_differs_per_image_and_repeats(tiny_spec: DataSpec) -> None:
    crop = dataclasses.replace(PROTOCOLS["quick"], strategy="rotate").augmenter(tiny_spec)
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1, -1)
    first = crop(image, torch.Generator().manual_seed(1))
    assert torch.equal(first, crop(image, torch.Generator().manual_seed(1)))
    assert not torch.allclose(first[0], first[1])


def test_score() -> None:
    assert score(1.0) == pytest.approx(1.0)
    assert score(-1.0) == 0.0
    assert score(0.0) == pytest.approx(0.2689414, abs=1e-6)
    assert score(0.3) > score(0.2)


def test_label_robust_score() -> None:
    assert label_robust_score(0.8, 0.5) == pytest.approx(score(0.3))
    assert label_robust_score(0.8, 0.5, 0.9) == pytest.approx(score(0.5 * 0.3 - 0.5 * 0.1))
    assert label_robust_score(1.0, 0.0) == pytest.approx(1.0)
    for wrong in ((80.0, 0.5, None), (0.8, 50.0, None), (0.8, 0.5, 90.0)):
        with pytest.raises(InputError, match="fraction"):
            label_robust_score(*wrong)
    with pytest.raises(InputError, match="fractions"):
        score(30.0)


def blobs(per: int = 20) -> torch.Tensor:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    rng = torch.Generator().manual_seed(3)
    return (centres[:, None] + 0.5 * torch.randn(3, per, 2, generator=rng)).reshape(-1, 2)


def test_kmeans_finds_blobs() -> None:
    points = blobs()
    centres = kmeans(points, 3, torch.Generator().manual_seed(0))
    means = points.reshape(3, 20, 2).mean(1)
    assert torch.cdist(centres, means).min(1).values.max() < 1e-5
    chosen = medoids(points, 3, torch.Generator().manual_seed(0))
    assert sorted((chosen // 20).tolist()) == [0, 1, 2]
    for index in chosen.tolist():
        blob = points.reshape(3, 20, 2)[index // 20]
        assert math.isclose(
            float((points[index] - blob.mean(0)).norm()), float((blob - blob.mean(0)).norm(dim=1).min()), rel_tol=1e-4
        )


def test_medoids_are_distinct_even_among_equal_points() -> None:
    same = torch.ones(6, 4)
    assert sorted(medoids(same, 6, torch.Generator().manual_seed(0)).tolist()) == list(range(6))
    one = medoids(blobs(), 1, torch.Generator().manual_seed(5))
    assert torch.equal(one, medoids(blobs(), 1, torch.Generator().manual_seed(6)))
    with pytest.raises(InputError, match="between 1 and 6"):
        medoids(same, 7, torch.Generator())


def report() -> Report:
    runs = (Run(0, 71.25, 10, 300, 1.5), Run(1, 70.75, 10, 300, 1.6))
    rows = (
        Row("bundle", "equal-images", "convnet", 1.0, 1.0, 72.0, runs),
        Row("random-real", "equal-images", "convnet", 1.0, 1.0, 788.0, (Run(0, 50.0, 10, 300, 1.0),)),
    )
    return Report(
        source="bundle",
        source_sha256="ab",
        protocol=PROTOCOLS["quick"].to_dict(),
        data="fashion",
        fingerprint="cd",
        split="test",
        class_names=("shirt", "sandal"),
        seeds=(0, 1),
        precision="fp32",
        rows=rows,
        gains=(Gain("convnet", "equal-images", 0.21, score(0.21), "IOR"),),
        bytes={"latents": 64, "labels": 8},
        full_accuracy=None,
        notes=("a note",),
        machine=Machine("a processor", 2, "cpu", "2.14", None),
        seconds=4.1,
    )


def test_report_round_trip() -> None:
    first = report()
    assert Report.from_json(first.to_json()) == first
    row = json.loads(first.to_json())["rows"][0]
    assert (row["accuracy_mean"], row["num_runs"]) == (71.0, 2)
    assert row["accuracy_std"] == pytest.approx(math.sqrt(0.125))
    assert first.rows[1].accuracy_std is None, "one run has no deviation"
    assert json.loads(first.to_json())["rows"][1]["accuracy_std"] is None


def test_report_summary_shape() -> None:
    summary = report().summary()
    assert (summary["protocol"], summary["data"], summary["num_classes"]) == ("quick", "fashion", 2)
    wanted = {"name", "images_per_class", "bytes_per_class", "accuracy_mean", "accuracy_std", "num_runs"}
    assert all(wanted <= row.keys() for row in summary["rows"])
    json.dumps(summary)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1}'])
def test_report_refuses_other_files(text: str) -> None:
    with pytest.raises(InputError, match=r"report"):
        Report.from_json(text)


def test_the_commit_of_a_report_is_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True
        ).stdout

    package, log = tmp_path / "latentdc" / "__init__.py", tmp_path / "runs.jsonl"
    package.parent.mkdir()
    monkeypatch.setattr(latentdc, "__file__", str(package))
    assert compare.machine("cpu").commit is None, "no clone"
    for file in (package, log):
        file.write_text("", encoding="utf-8")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    head = git("rev-parse", "--short=12", "HEAD").strip()
    assert compare.machine("cpu").commit == head
    log.write_text("{}", encoding="utf-8")
    assert compare.machine("cpu").commit == head, "a log that grows leaves the code as it was"
    package.write_text("edited = True", encoding="utf-8")
    assert compare.machine("cpu").commit == f"{head}-dirty"
