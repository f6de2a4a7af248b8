"""Labels of a finished set: a teacher's, stored and counted, and those of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentdc.bundle import load_bundle
from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.errors import RecipeError
from latentdc.evaluate import evaluate
from latentdc.evaluate.protocols import Protocol
from latentdc.labels import HardLabels, Lesson, TeacherLabels, relabelled
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.recipe import build, citations, dry_run, load_recipe, parse_recipe, to_toml

TEACHER = {"kind": "teacher", "arch": "mlp", "width": 16, "epochs": 30}
TINY = {
    "images_per_class": 2,
    "steps": 1,
    "init": "real",
    "storage": "fp16",
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6},
}


def _recipe(**changes: Any) -> Any:
    return parse_recipe({**TINY, **changes})


def _condense(store: ClassStore, tmp_path: Path, **changes: Any) -> Any:
    pipe = CondensationPipeline(device="cpu")
    pipe.set_progress_bar_config(disable=True)
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(_recipe(**changes)))
    return pipe(store, file, out=tmp_path / "set")


def test_a_bundle_carries_a_teachers_labels_and_counts_them(tiny_store: ClassStore, tmp_path: Path) -> None:
    made = _condense(tiny_store, tmp_path, decoder="pixels", labels=TEACHER)
    bank = load_bundle(tmp_path / "set").bank
    assert bank.soft is not None
    assert bank.soft.dtype == torch.float16
    torch.testing.assert_close(bank.y.sum(1), torch.ones(6), atol=2e-3, rtol=0)
    assert torch.equal(bank.y.argmax(1), bank.owner), "real images of separable classes"
    assert float(bank.y.max()) < 1
    storage = made.bundle.storage
    assert storage.labels == 4 * 3 + 6 * 3 * 2
    told = dry_run(build(_recipe(decoder="pixels", labels=TEACHER), tiny_store.spec), tiny_store)
    assert storage.bytes_per_class == pytest.approx(told["bytes_per_class"])
    assert _condense(tiny_store, tmp_path / "hard", decoder="pixels").bundle.bank.soft is None


def test_students_are_trained_on_them(tiny_store: ClassStore, tiny_test_store: ClassStore, tmp_path: Path) -> None:
    _condense(tiny_store, tmp_path, decoder="pixels", labels=TEACHER)
    data = Data(tiny_store, tiny_test_store)
    protocol = Protocol("tiny", epochs=400, cut_mix=0.5, milestones=(0.5,))
    report = evaluate(
        tmp_path / "set", data, protocol, students=("mlp",), seeds=1, width=16, baselines=(), progress=False
    )
    assert report.rows[0].accuracy_mean > 50


def test_temperature_softens_and_tiles_share_a_label(tiny_store: ClassStore) -> None:
    spec, rows = tiny_store.spec, tiny_store.batch([0, 14, 30]).x
    decoder = PixelsDecoder(spec.image_shape, spec.mean, spec.std)
    bank = LatentBank.of(decoder.encode(rows, torch.arange(3)), [1, 1, 1])
    lesson = Lesson(tiny_store, 0)
    said = [
        relabelled(TeacherLabels("mlp", 16, 20, temperature=heat), bank, decoder, None, lesson).y.detach()
        for heat in (1.0, 1.0, 4.0)
    ]
    assert torch.equal(said[0], said[1])
    assert float(said[2].max()) < float(said[0].max())
    teacher, tiles = TeacherLabels("mlp", 16, 20), TilesFormation(2)
    tiled = relabelled(teacher, bank, decoder, tiles, lesson).y.detach()
    of_each = teacher.of(lambda: tiles(decoder(bank.latents(), bank.owner)).clamp(0, 1), lesson)
    torch.testing.assert_close(tiled, of_each.view(3, 4, 3).mean(1))
    assert float((tiled - of_each[::4]).abs().max()) > 0.001, "tiles of a row differ, or this would say nothing"
    assert relabelled(HardLabels(), bank, decoder, None, lesson) is bank


def test_a_budget_of_bytes_pays_for_them(tiny_store: ClassStore) -> None:
    counts = [
        build(_recipe(decoder="pixels", images_per_class=None, bytes_per_class=700, **more), tiny_store.spec).counts[0]
        for more in ({}, {"labels": TEACHER})
    ]
    assert counts == [(700 - 4) // 128, (700 - 4) // (128 + 6)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("techer", r'labels = "techer": no such kind of labels\. Did you mean "teacher"'),
        ({"kind": "teacher", "epochs": 0}, r"labels\.epochs = 0: give at least 1"),
        ({"kind": "teacher", "temperature": 0.0}, r"labels\.temperature = 0\.0: give a positive"),
        ({"kind": "teacher", "arch": "vgg"}, r'labels\.arch = "vgg": give one of convnet'),
    ],
)
def test_mistakes_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(labels=labels)


def test_teachers_are_credited_and_distributions_have_no_rows_to_label() -> None:
    assert "hinton2015distilling" in citations(_recipe(labels="teacher", decoder="pixels"))
    with pytest.raises(RecipeError, match=r'labels = "teacher": a distribution has no rows to label'):
        load_recipe("d3hr", overrides={"labels": "teacher"})
