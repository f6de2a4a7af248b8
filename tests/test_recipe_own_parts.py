"""Parts of somebody's own, by ``package.module:Class``: made, run, sketched, credited, or refused clearly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import own_parts
import pytest
from accelerate.accelerator import Accelerator

from latentdc.condense import condense
from latentdc.data.store import ClassStore
from latentdc.errors import BundleError, InputError, RecipeError
from latentdc.recipe import build, cite, make_bank, make_source, parse_recipe, to_toml
from latentdc.sketch import Sketch

OWN: dict[str, Any] = {
    "images_per_class": 2,
    "steps": 2,
    "init": "real",
    "source": {"arch": "mlp", "width": 8, "num_per_class": 6, "num_pairs": 2, "batch_size": 8},
    "objective": {
        "kind": "own_parts:Own",
        "see": {"kind": "own_parts:Logits", "scale": 2},
        "by": {"kind": "own_parts:Louder", "factor": 3.0},
    },
    "augment": {"kind": "own_parts:Still", "times": 4},
    "formation": "own_parts:Twice",
}
ONE = {"images_per_class": 1}


@pytest.mark.parametrize("kind", ["minibatches", "sketch"])
def test_a_recipe_of_own_parts_runs(kind: str, tiny_store: ClassStore, tmp_path: Path) -> None:
    recipe = parse_recipe(OWN, overrides={"source.kind": kind})
    parts = build(recipe, tiny_store.spec)
    assert type(parts.objective) is own_parts.Own
    assert isinstance(parts.see, own_parts.Logits)
    assert parts.see.scale == 2.0
    assert parts.by == own_parts.Louder(factor=3.0)
    assert isinstance(parts.formation, own_parts.Twice)
    out = tmp_path / "sketch.safetensors"
    make_source(parts, tiny_store, out=out, progress=False)
    source = make_source(parts, tiny_store, out=out, progress=False)  # A sketch is now read from its file.
    bank = make_bank(parts, tiny_store)
    before = bank.z["x"].detach().clone()
    condense(
        parts.decoder,
        bank,
        parts.objective,
        source,
        steps=2,
        optim=recipe.optim,
        seed=0,
        accelerator=Accelerator(cpu=True),
        formation=parts.formation,
        progress=False,
    )
    assert not before.equal(bank.z["x"])
    if kind == "sketch":
        assert isinstance(source, Sketch)
        assert source.augment == own_parts.Still(times=4)
        with pytest.raises(BundleError, match=r"augmentation Still, which is not latentdc's own; name it in the rec"):
            _ = Sketch.load(out).augment


def test_own_parts_are_written_read_and_credited() -> None:
    import tomllib

    recipe = parse_recipe(OWN)
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe
    told = cite(recipe)
    assert "gretton2012mmd" in told
    assert "@misc{own2026logits," in told
    assert "zhao2021dsa" not in told


def test_a_start_and_a_decoder_of_ones_own(tiny_store: ClassStore) -> None:
    chosen = {"init": {"kind": "own_parts:Grey", "level": 2}, "decoder": {"kind": "own_parts:Plain", "mean": [0.25]}}
    parts = build(parse_recipe(ONE | chosen), tiny_store.spec)
    assert type(parts.decoder) is own_parts.Plain
    assert tuple(parts.decoder.image_shape) == tiny_store.spec.image_shape
    assert list(parts.decoder.config.mean) == [0.25]
    assert make_bank(parts, tiny_store).z["x"].eq(2.0).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"objective": {"by": "own_parts:Absent"}},
            r'objective\.by = "own_parts:Absent": cannot import Absent from own',
        ),
        (
            {"objective": {"by": "absent.parts:A"}},
            r"cannot import A from absent\.parts: No module named 'absent'.*PYTHONP",
        ),
        ({"objective": {"by": "own_parts:function"}}, r"function is a function; a class is needed"),
        ({"objective": {"by": ":A"}}, r'objective\.by = ":A": a class of your own is named "package\.module:Class"'),
        ({"objective": {"by": "own_parts.Louder"}}, r'no such discrepancy.*One of your own: "package\.module:Class"'),
        (
            {"objective": {"by": "own_parts:Logits"}},
            r"Logits is no discrepancy; .*latentdc\.discrepancies\.base\.Discre",
        ),
        ({"init": "own_parts:Unread"}, r"Unread is no start; .*latentdc\.initialise\.request\.Start"),
        ({"init": {"kind": "own_parts:Grey", "level": "x"}}, r"init\.level = 'x': a value of type float"),
        ({"decoder": {"kind": "own_parts:Unread"}}, r"Unread is no decoder with options; .*latentdc\.types\.Decoder"),
        ({"objective": {"see": "own_parts:Untold"}}, r"Untold is no dataclass; make it a frozen one"),
        ({"objective": {"see": "own_parts:Louder"}}, r"objective\.see = .*Louder is no representation"),
        (
            {"augment": "own_parts:Twice"},
            r"Twice is no augmentation; it has to be what latentdc\.data\.augment\.Augment",
        ),
        (
            {"formation": {"kind": "own_parts:Unread", "price": 1}},
            r"Unread is no formation; .*latentdc\.types\.Formation",
        ),
        (
            {"objective": {"by": {"kind": "own_parts:Louder", "factr": 1.0}}},
            r'"factr": no such option of own_parts:Lou',
        ),
        (
            {"objective": {"by": {"kind": "own_parts:Louder", "factor": "x"}}},
            r"by\.factor = 'x': a value of type float",
        ),
    ],
)
def test_what_is_no_part_of_the_kind_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(ONE | table)


def test_an_objective_or_network_of_ones_own_is_checked(tiny_store: ClassStore) -> None:
    with pytest.raises(RecipeError, match=r"objective\.kind \(own_parts:Louder\): "):
        build(parse_recipe(ONE | {"objective": {"kind": "own_parts:Louder"}}), tiny_store.spec)
    with pytest.raises(InputError, match="not a subclass of latentdc"):
        cite(parse_recipe(ONE | {"source": {"arch": "own_parts:Louder"}}))
