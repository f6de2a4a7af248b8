"""Seconds of condensation to a fixed accuracy, from mini-batches and from a sketch:
``PYTHONPATH=tests python -m bench.seconds_to --accuracy 80 --note "…"``.

Each source is given runs of twice as many steps until students reach the accuracy on held-out training images. Every
run starts anew, with its own schedule, so that its seconds are those of a user who asked for that many steps. The
sketch is taken once; its seconds stand apart, for it serves every later run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.measure import RECORDS, code_now, record_of

from latentdc.data.sources import Data, open_data
from latentdc.evaluate import evaluate
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.recipe import make_source

LEAST_STEPS = 10
SOURCES = ("minibatches", "sketch")


def seconds_to(
    accuracy: float,
    data: Data,
    kind: str,
    *,
    images_per_class: int = 10,
    most_seconds: float = 1800,
    settings: tuple[str, ...] = (),
    seeds: int = 3,
    student: str = "convnet",
    compile: bool = True,
) -> dict[str, Any]:
    """Runs of ``dm-gan`` with ever more steps, and as ``median_s`` the seconds of the first that got there.

    Args:
        accuracy: in per cent, of students on the held-out slice of the training images; mean over seeds.
        data: the real images.
        kind: of ``SOURCES``.
        images_per_class: latents of each class.
        most_seconds: no run begins that would take longer.
        settings: further settings of the recipe.
        seeds: students a run.
        student: their architecture.
        compile: compile them; no part of the seconds.
    """
    real, _ = data.train.holdout()
    pipe = CondensationPipeline()
    pipe.set_progress_bar_config(disable=True)
    settings = (f"source.kind={kind}", *settings)
    told: dict[str, Any] = {"median_s": None, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        sketched = None
        if kind == "sketch":
            began, sketched = perf_counter(), Path(folder, "sketch.safetensors")
            store, built = pipe.prepare(real, "dm-gan", settings=settings)
            make_source(built, store, out=sketched, device=pipe.device, progress=False)
            told["sketch_seconds"] = perf_counter() - began
        steps, seconds = LEAST_STEPS, 0.0
        while told["median_s"] is None and 2 * seconds <= most_seconds:
            bundle, began = Path(folder, f"{steps}"), perf_counter()
            pipe(
                real,
                "dm-gan",
                out=bundle,
                images_per_class=images_per_class,
                steps=steps,
                sketch=sketched,
                settings=[each for each in settings if sketched is None or not each.startswith("source.")],
            )
            seconds = perf_counter() - began
            judged = {"students": (student,), "seeds": seeds, "baselines": (), "split": "held-out", "progress": False}
            found = evaluate(bundle, data, "quick", **judged, precision="bf16", compile=compile).rows[0].accuracy_mean
            told["runs"].append({"steps": steps, "seconds": seconds, "accuracy": found})
            sys.stderr.write(f"{kind}: {steps} steps, {seconds:.0f} s, {found:.1f} %\n")
            if found >= accuracy:
                told["median_s"] = seconds
            steps *= 2
    return told


def main() -> int:
    """Measure and write a record; the exit status is 1 if a source never got there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accuracy", type=float, default=80.0, help="per cent")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images-per-class", type=int, default=10)
    parser.add_argument("--real-per-class", type=int, default=256, help="real images of each class a mini-batch holds")
    parser.add_argument("--num-pairs", type=int, default=10, help="of the sketch")
    parser.add_argument("--images-per-pair", type=int, default=600, help="real images of each class a pair has seen")
    parser.add_argument("--note", required=True, help="circumstances, for instance what else ran on the machine")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the record")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    load, code, data = os.getloadavg(), code_now(), open_data(given.data)
    of = {
        "minibatches": (f"source.num_per_class={given.real_per_class}",),
        "sketch": (f"source.num_pairs={given.num_pairs}", f"source.images_per_pair={given.images_per_pair}"),
    }
    results = {
        f"seconds_to_{given.accuracy:g}[{kind}]": {"settings": list(of[kind])}
        | seconds_to(given.accuracy, data, kind, images_per_class=given.images_per_class, settings=of[kind])
        for kind in SOURCES
    }
    record = record_of(results, given.note, load, code, clock="wall clock (time.perf_counter)")
    path = given.out / f"{record['date']}-{record['commit'][:10]}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")
    return int(any(each["median_s"] is None for each in results.values()))


if __name__ == "__main__":
    sys.exit(main())
