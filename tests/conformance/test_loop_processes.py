"""One process equals two: classes are shared out, gradients summed, the checkpoint is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors.torch import load_file

from latentdc.bundle import load_bundle

SCRIPT = """
    import json, sys
    from pathlib import Path

    import torch
    from accelerate.accelerator import Accelerator
    from safetensors.torch import save_file

    from latentdc.checkpoint import Checkpoints
    from latentdc.condense import condense
    from latentdc.data.store import from_arrays
    from latentdc.recipe import build, identity, make_bank, make_source, parse_recipe

    torch.set_num_threads(1)
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    accelerator = Accelerator(cpu=True)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 8, 8), generator=rng, dtype=torch.uint8)
    store = from_arrays(images, torch.arange(3).repeat_interleave(10), ["a", "b", "c"], name="noise")
    recipe = parse_recipe(json.loads(sys.argv[3]))
    built = build(recipe, store.spec)
    source = make_source(built, store, progress=False)
    kept = Checkpoints(folder / "run", identity(built, source=source), every_steps=2, every_seconds=None)
    bank = condense(
        built.decoder, make_bank(built, store), built.objective, source, steps=steps, optim=recipe.optim, seed=0,
        accelerator=accelerator, formation=built.formation, checkpoints=kept, progress=False,
    )
    if accelerator.is_main_process:
        save_file({"z": bank.z["x"].detach()}, folder / "z.safetensors")
        (folder / "world").write_text(str(accelerator.num_processes))
    accelerator.end_training()
"""


def launch(folder: Path, recipe: dict, processes: int, steps: int) -> None:
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *start, str(script), str(folder), str(steps), json.dumps(recipe)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "world").read_text() == str(processes)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["minibatches", "sketch"])
def test_two_processes_give_what_one_gives(source: str, tmp_path: Path) -> None:
    recipe = {
        "images_per_class": 2,
        "formation": "tiles",
        "optim": {"kind": "sgd", "lr": 0.5},
        "source": {"kind": source, "arch": "mlp", "width": 8, "num_per_class": 5, "num_pairs": 2},
    }
    launch(tmp_path / "one", recipe, 1, 4)
    launch(tmp_path / "two", recipe, 2, 2)
    launch(tmp_path / "two", recipe, 2, 4)  # Resumes, and every process takes the checkpoint up.
    one, two = (load_file(tmp_path / name / "z.safetensors")["z"] for name in ("one", "two"))
    assert float((one - two).abs().max()) <= 1e-5 * float(one.abs().max())
    first, second = (
        [json.loads(line) for line in (tmp_path / name / "run" / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [line["step"] for line in second] == [1, 2, 3, 4]
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.slow
def test_more_processes_than_classes_share(tmp_path: Path) -> None:
    recipe = {
        "images_per_class": 1,
        "augment": "none",
        "source": {"arch": "mlp", "width": 8, "num_per_class": 5},
    }
    launch(tmp_path / "one", recipe, 1, 2)
    launch(tmp_path / "four", recipe, 4, 2)
    one, four = (load_file(tmp_path / name / "z.safetensors")["z"] for name in ("one", "four"))
    assert float((one - four).abs().max()) <= 1e-5 * float(one.abs().max())


@pytest.mark.slow
def test_two_processes_through_the_command_and_a_generator(tmp_path: Path) -> None:
    words = "condense --data fashion-mnist-mini --limit 20 --recipe dm-gan --num-pairs 2 --images-per-class 2 --steps 3"
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    for processes in (1, 2):
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        out = str(tmp_path / str(processes))
        command = [sys.executable, *start, "-m", "latentdc.cli", *words.split(), "--out", out]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_bundle(tmp_path / name).bank.latents()["z"].detach() for name in ("1", "2"))
    assert float((one - two).abs().max()) <= 1e-4 * float(one.abs().max())
