"""Bytes of a sketch are known before it is taken, and what each of its kinds costs is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentdc.data.augment import NoAugment
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES
from latentdc.networks import FixedPool
from latentdc.recipe import build, dry_run, make_source, parse_recipe
from latentdc.representations import Features, Gradients, HeadVariance, Representation
from latentdc.sketch import Sketch, sketch, sketch_bytes
from latentdc.types import DataSpec

CASES: list[tuple[Representation, str, int | None, int]] = [
    (Features(), "mean", None, 8 * (4 + 1)),
    (Features(layer="all"), "moments", None, 8 * (3 * (64 + 16 + 4) + 1)),
    (Features(), "rff", None, 8 * (2 * 1024 + 1 + 1)),
    (Gradients(), "cosine", None, 8 * (4 * 9 + 4 * 36 + 4 * 36 + 3 * 4 + 1)),
    (Gradients(scope="all"), "mean", None, 8 * (4 * 9 + 4 * 36 + 4 * 36 + 3 * 4 + 1)),
    (Gradients(layers="convolutions", project=5), "norm", None, 8 * (3 * 4 * 5 + 1)),
    (Gradients(rows="whole", project=5), "norm", None, 8 * (3 * 4 * 5 + 3 * 4 + 1)),
    (HeadVariance(), "mean", None, 8 * (2 * 3 * 4 + 1)),
    (Features(), "energy", 5, 5 * (4 * 4 + 8) + 8),
    (Features(), "mmd", 5, 5 * (4 * 4 + 8) + 16),
    (Features(layer="all"), "sliced", 50, 12 * (4 * (64 + 16 + 4) + 3 * 8) + 8),
]
"""What is looked at, how it is compared, landmarks, and bytes of a class and pair: 3 classes of 12 images, width 4."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{type(case[0]).__name__}-{case[1]}")
def test_bytes_are_known_beforehand(case: tuple[Representation, str, int | None, int], tiny_store: ClassStore) -> None:
    see, name, num, bytes_ = case
    pool, by = FixedPool("convnet", tiny_store.spec, 0, 2, width=4), DISCREPANCIES[name]()
    told = sketch_bytes(pool, see, by, tiny_store.counts, num_pairs=2, landmarks=num)
    assert told == 2 * 3 * bytes_
    assert told == sketch(tiny_store, pool, NoAugment(), see, by, landmarks=num, progress=False).num_bytes


@pytest.mark.parametrize(
    "objective", [{"see": "gradients", "by": "cosine"}, {"by": "energy"}], ids=["gradients", "landmarks"]
)
def test_a_dry_run_counts_them(objective: dict[str, str], tiny_store: ClassStore) -> None:
    table = {
        "images_per_class": 1,
        "augment": "none",
        "steps": 2,
        "objective": objective,
        "source": {"kind": "sketch", "num_pairs": 3, "width": 4, "images_per_pair": 6},
    }
    changes = {"source.landmarks": 7} if objective["by"] == "energy" else {}
    parts = build(parse_recipe(table, overrides=changes), tiny_store.spec)
    source = make_source(parts, tiny_store, progress=False)
    assert isinstance(source, Sketch)
    assert dry_run(parts, tiny_store)["sketch_bytes"] == source.num_bytes


@pytest.mark.parametrize(("project", "told"), [(None, "1.5 GB"), (64, "87 MB")])
def test_the_figures_that_the_keys_tell(project: int | None, told: str) -> None:
    spec = DataSpec((1, 28, 28), tuple("abcdefghij"), (0.5,), (0.25,))
    pool, counts = FixedPool("convnet", spec, 0, 1), [1] * 10
    taken = sketch_bytes(pool, Gradients(project=project), DISCREPANCIES["cosine"](), counts, num_pairs=60)
    assert told == (f"{taken / 1e9:.1f} GB" if taken > 1e9 else f"{taken / 1e6:.0f} MB")
    assert told in (Path(__file__).resolve().parents[1] / "pipelines/README.md").read_text(encoding="utf-8")
