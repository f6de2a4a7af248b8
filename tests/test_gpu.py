"""The main job on a CUDA device: the same run as on the CPU, up to the rounding of its kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentdc.data.sources import open_data
from latentdc.data.store import ClassStore
from latentdc.evaluate import evaluate
from latentdc.pipelines.condensation import CondensationOutput, CondensationPipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def store() -> ClassStore:
    return open_data("fashion-mnist-mini").train.limit(100)


def condense(store: ClassStore, out: Path, device: str, **given: object) -> CondensationOutput:
    pipe = CondensationPipeline.from_pretrained("fashion-mnist-gan").to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe(store, "dm-gan", out=out, overrides={"source.num_pairs": 2, "steps": 3, "chunk": 4, **given})


def test_a_gpu_makes_what_a_cpu_makes(store: ClassStore, tmp_path: Path) -> None:
    here, there = condense(store, tmp_path / "cpu", "cpu"), condense(store, tmp_path / "cuda", "cuda")
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
    z, other = (made.bundle.bank.latents()["z"].detach() for made in (here, there))
    assert float((z - other).abs().max()) < 1e-2 * float(z.abs().max())


@pytest.mark.parametrize("penalties", [[], [{"kind": "pairwise"}]])
def test_starts_at_real_images_on_a_gpu(store: ClassStore, tmp_path: Path, penalties: list[dict[str, str]]) -> None:
    changes = {"init.kind": "inversion", "init.steps": 3, "objective.penalties": penalties}
    assert condense(store, tmp_path / "start", "cuda", **changes).bundle.provenance["start"]["num_rows"] == 10


def test_bf16_and_students_on_a_gpu(store: ClassStore, tmp_path: Path) -> None:
    made = condense(store, tmp_path / "bf16", "cuda", precision="bf16")
    report = evaluate(
        made.path, open_data("fashion-mnist-mini"), "quick", seeds=1, baselines=(), width=16, device="cuda"
    )
    assert report.machine.device != "cpu"
    assert report.rows[0].accuracy_mean > 20
