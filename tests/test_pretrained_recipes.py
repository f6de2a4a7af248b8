"""Recipes whose network was trained by others: from mini-batches and from a sketch, in Python and by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_backbones import backbone_folder, write_backbone
from typer.testing import CliRunner

from latentdc.cli.__main__ import app
from latentdc.data.augment import NoAugment
from latentdc.data.sampling import SAMPLERS, UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import Mean
from latentdc.errors import BundleError, InputError, RecipeError
from latentdc.networks import FixedPool, PretrainedPool
from latentdc.objectives import PENALTIES
from latentdc.recipe import as_sketched, build, citations, identity, make_bank, make_source, parse_recipe
from latentdc.recipe.spec import Part
from latentdc.representations import REPRESENTATIONS, Features
from latentdc.seeding import stream
from latentdc.sketch import Sketch, sketch
from latentdc.source import Look, Minibatches, Started


def _recipe(see: Any = "features", *, model: str | None = None, objective: Any = None, **source: Any) -> Any:
    pool = {"kind": "pretrained", "model": model or backbone_folder(), "depths": "maps"}
    return parse_recipe(
        {
            "images_per_class": 2,
            "steps": 2,
            "init": "medoids",
            "augment": "none",
            "objective": {"see": see, **(objective or {})},
            "source": {"num_per_class": 100, "num_pairs": 2, "pool": pool, **source},
        }
    )


@pytest.mark.parametrize(
    "see", ["features", *({"kind": "features", "layer": each} for each in ("all", "maps")), "attention", "statistics"]
)
def test_a_sketch_is_the_summary_of_all_images(see: Any, tiny_store: ClassStore) -> None:
    """Of mini-batches that hold every image, without augmentation."""
    parts = build(_recipe(see), tiny_store.spec)
    whole = make_source(parts, tiny_store, progress=False).view(0)
    taken = make_source(build(_recipe(see, kind="sketch"), tiny_store.spec), tiny_store, progress=False).view(0)
    both = (view.real([Look(parts.see, parts.by)], [0, 1, 2])[0] for view in (whole, taken))
    for of_batch, of_sketch in zip(*both, strict=True):
        torch.testing.assert_close(of_batch.mean.double(), of_sketch.mean.double(), rtol=1e-4, atol=1e-5)


def test_the_model_is_loaded_once(tiny_store: ClassStore) -> None:
    parts = build(_recipe(), tiny_store.spec)
    assert parts.pretrained is not None
    make_bank(parts, tiny_store)
    source = make_source(parts, tiny_store, progress=False)
    assert source.view(0).net is source.view(7).net is parts.pretrained.network(0)


def _sketch(store: ClassStore, model: Path) -> Sketch:
    pool = PretrainedPool("", store.spec, 0, model=str(model))
    return sketch(store, pool, NoAugment(), Features(), Mean(), num_pairs=2, progress=False)


def _of(model: Path) -> Any:
    return parse_recipe(
        {"images_per_class": 1, "augment": "none", "source": {"pool": {"kind": "pretrained", "model": str(model)}}}
    )


def test_a_sketch_knows_its_network_by_the_weights(tiny_store: ClassStore, tmp_path: Path) -> None:
    """Where they lie does not matter, and what else lies there is refused."""
    model, file = write_backbone(tmp_path / "model"), tmp_path / "s.st"
    _sketch(tiny_store, model).save(file)
    shown = Sketch.load(file).view(0).net.observe(tiny_store.batch([0]).x).last
    moved = model.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r'source.pool.model = ".*/model": there is no such folder'):
        Sketch.load(file).view(0)
    taken = Sketch.load(file)
    recipe = as_sketched(_of(moved), taken, ["source.pool.model"])
    source = make_source(build(recipe, tiny_store.spec), tiny_store, given=taken)
    assert torch.equal(source.view(0).net.observe(tiny_store.batch([0]).x).last, shown)
    write_backbone(moved, seed=1)
    parts = build(recipe, tiny_store.spec)
    with pytest.raises(BundleError, match=r'not the one it was taken with.*moved" has other weights or numbers now'):
        make_source(parts, tiny_store, given=Sketch.load(file)).view(0)


def test_a_run_may_be_taken_up_with_the_model_elsewhere(tiny_store: ClassStore, tmp_path: Path) -> None:
    model = write_backbone(tmp_path / "model")
    first = identity(build(_of(model), tiny_store.spec))
    assert identity(build(_of(model.rename(tmp_path / "moved")), tiny_store.spec)) == first


def test_labels_cannot_be_learned_without_class_scores(tiny_store: ClassStore, tmp_path: Path) -> None:
    recipe = replace(_of(write_backbone(tmp_path / "model")), labels=Part("learned"))
    with pytest.raises(RecipeError, match=r'source.pool = "pretrained": its networks have no class scores to compare'):
        build(recipe, tiny_store.spec)


def test_parts_taken_of_models_in_two_places_merge(tiny_store: ClassStore, tmp_path: Path) -> None:
    even, odd, third = (tiny_store.subset(range(first, 36, 3)) for first in range(3))
    a, b, other = (write_backbone(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    merged = _sketch(even, a).merge(_sketch(odd, b))
    assert merged.counts[0].tolist() == [8.0] * 3
    with pytest.raises(InputError, match="fingerprints differ"):
        merged.merge(_sketch(third, other))


def test_the_recipe_says_what_a_given_sketch_was_taken_of(tiny_store: ClassStore, tmp_path: Path) -> None:
    model = write_backbone(tmp_path / "model")
    plain = parse_recipe({"images_per_class": 1, "source": {"width": 4}})
    recipe = as_sketched(plain, _sketch(tiny_store, model))
    assert recipe.source.pool.options == {"model": str(model), "depths": "pooled"}
    assert recipe.source.width is None
    random = sketch(
        tiny_store, FixedPool("mlp", tiny_store.spec, 0, 1), NoAugment(), Features(), Mean(), progress=False
    )
    assert as_sketched(_of(model), random).source.pool.kind == "fresh"
    with pytest.raises(InputError, match=r"source\.pool = pretrained, the sketch's is fresh"):
        as_sketched(_of(model), random, ["source.pool.kind"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"see": "logits"}, 'source.pool = "pretrained" and objective.see = "logits": the network has no classifier'),
        ({"see": "gradients", "objective": {"by": "cosine"}}, 'objective.see = "gradients": the network has no class'),
        ({"see": "head-variance"}, 'objective.see = "head-variance": the network has no classifier'),
        ({"objective": {"penalties": [{"kind": "cross-entropy"}]}}, 'objective.penalties = "cross-entropy": the net'),
        ({"sampler": "easiest"}, 'source.sampler = "easiest": the network has no classifier'),
        ({"see": "attention", "pool": {"kind": "pretrained", "model": "a/b"}}, 'means over positions.*depths = "maps"'),
        (
            {"see": {"kind": "features", "layer": "maps"}, "pool": {"kind": "pretrained", "model": "a/b"}},
            'objective.see = "features": the network shows means over positions',
        ),
        ({"arch": "mlp"}, "source.arch is read by a pool that makes its networks alone"),
        ({"width": 8}, "source.width is read by a pool that makes its networks alone"),
        ({"pool": "pretrained"}, r"source.pool \(pretrained\): model is missing"),
        (
            {"pool": {"kind": "pretrained", "model": "nowhere"}},
            'source.pool.model = "nowhere": there is no such folder',
        ),
        ({"objective": {"weights": [1, 2]}, "see": {"kind": "features", "layer": "all"}}, "shows 3 tensors of"),
    ],
)
def test_what_the_network_cannot_show_is_refused(asked: dict[str, Any], message: str, tiny_store: ClassStore) -> None:
    with pytest.raises(InputError, match=message):
        build(_recipe(**asked), tiny_store.spec)


def _used(where: str, name: str, store: ClassStore, pool: PretrainedPool) -> Any:
    """Whatever a part makes of a network without a classifier; returns the part."""
    batch = store.batch([0, 1, 12, 13, 24, 25])
    if where == "see":
        part: Any = REPRESENTATIONS[name]()
        part(pool.at(0), batch, differentiable=False)
        return part
    if where == "sampler":
        part = SAMPLERS[name](store, 4)
        part.begin(0, lambda cls: stream(0, "real", 0, cls), pool.at(0))
        part([0], None, lambda cls: stream(0, "real", 0, cls), pool.at(0))
        return part
    source = Started(Minibatches(store, UniformSampler(store, 4), pool, NoAugment(), seed=0), batch.x)
    part = PENALTIES[name]()
    part(source.view(0), batch._replace(row=torch.arange(6)))
    return part


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (where, name)
        for where, table in {"see": REPRESENTATIONS, "sampler": SAMPLERS, "penalty": PENALTIES}.items()
        for name in table
    ],
)
def test_what_looks_at_class_scores_says_so(where: str, name: str, tiny_store: ClassStore) -> None:
    pool = PretrainedPool("", tiny_store.spec, 0, model=backbone_folder(), depths="maps")
    part = {"see": REPRESENTATIONS, "sampler": SAMPLERS, "penalty": PENALTIES}[where][name]
    if getattr(part, "needs_classifier", False):
        with pytest.raises(InputError, match="class scores were asked of a pretrained network"):
            _used(where, name, tiny_store, pool)
    else:
        _used(where, name, tiny_store, pool)


def test_cites_no_architecture_of_ours() -> None:
    assert "zhao2021dc" in citations(parse_recipe({"images_per_class": 1}))
    assert "zhao2021dc" not in citations(_recipe())


def _run(*arguments: object) -> Any:
    told = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="latentdc")
    assert told.exit_code == 0, f"{told.stderr}\n{told.exception!r}"
    return json.loads(told.stdout)


@pytest.fixture(scope="module")
def data(make_store: Callable[..., ClassStore], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, store = tmp_path_factory.mktemp("data"), make_store(8)
    for number, (image, label) in enumerate(zip(store.images, store.labels.tolist(), strict=True)):
        path = root / f"class-{label}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path)
    return root


def test_the_commands_take_it_from_end_to_end(data: Path, tmp_path: Path) -> None:
    """Planned, condensed from mini-batches, sketched, condensed from the sketch, inspected."""
    model = backbone_folder()
    named = ("--set", "source.pool.kind=pretrained", "--set", f"source.pool.model={model}")
    run = ("--data", data, "--decoder", "pixels", "--images-per-class", 1, "--steps", 2, "--json")
    plan = _run("condense", *run, *named, "--dry-run", "--out", tmp_path / "plan")
    assert plan["recipe"]["source.pool.options.model"] == model
    assert plan["step_seconds"] > 0
    made = _run("condense", *run, *named, "--out", tmp_path / "bundle")
    assert made["recipe"]["source.pool.kind"] == "pretrained"
    file = tmp_path / "s.safetensors"
    _run("sketch", "--data", data, "--num-pairs", 2, *named, "--out", file, "--json")
    made = _run("condense", *run, "--sketch", file, "--out", tmp_path / "sketched")
    assert made["recipe"]["source.pool.options.model"] == model
    told = CliRunner().invoke(app, ["inspect", str(file)])
    assert f"2 of network ({model}) and augmentation draw" in told.stdout
    plan = _run("condense", *run, *named, "--set", "source.kind=sketch", "--dry-run", "--out", tmp_path / "plan")
    assert plan["sketch_bytes"] == 60 * 3 * (8 + 1) * 8
