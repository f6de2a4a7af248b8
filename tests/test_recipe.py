"""Recipes: every key is checked, budgets become rows, and what is shipped can be read, written and credited."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest

from latentdc.data.augment import AUGMENTS
from latentdc.decoders import DECODERS, FORMATIONS
from latentdc.discrepancies import DISCREPANCIES
from latentdc.errors import BundleError, DataError, InputError, RecipeError
from latentdc.networks import ARCHITECTURES
from latentdc.objectives import OBJECTIVES, PENALTIES
from latentdc.recipe import Part, citations, cite, load_recipe, parse_recipe, parse_setting, references, to_toml
from latentdc.representations import REPRESENTATIONS
from latentdc.resources import shipped

ONE = {"images_per_class": 1}


@pytest.mark.parametrize("name", sorted(shipped("pipelines")))
def test_shipped_recipe_reads_writes_and_credits(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe
    entries = references()
    assert citations(recipe)
    assert all(key in entries for key in citations(recipe))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"objective": {"by": "mnd"}},
            r'objective\.by = "mnd": no such discrepancy\. Did you mean "mmd"\? Known: atoms, cf, cf-adversarial, ',
        ),
        ({"optim": {"lrr": 1.0}}, r'^optim: "lrr": no such key\. Did you mean "lr"\?'),
        ({"stpes": 3}, r'^"stpes": no such key\. Did you mean "steps"\?'),
        ({"steps": "many"}, r"steps = 'many': a value of type int is needed here"),
        ({"steps": True}, r"steps = True: a value of type int"),
        ({"steps": -1}, r"steps = -1: give at least 1, or 0 to keep the start"),
        ({"optim": {"lr": -1}}, r"optim\.lr = -1"),
        ({"optim": {"kind": "adma"}}, r'optim\.kind = "adma": no such optimiser\. Did you mean "adam"'),
        ({"optim": {"betas": [0.9]}}, r"optim\.betas = \[0\.9\]: 2 values"),
        ({"objective": {"by": {"kind": "mmd", "bandwith": 1.0}}}, r'"bandwith".*Did you mean "bandwidth"'),
        ({"objective": {"by": {"kind": "mmd", "bandwidth": -1.0}}}, r"objective\.by \(mmd\): .*bandwidth"),
        ({"formation": {"kind": "tiles", "factor": 0}}, r"formation \(tiles\): factor = 0"),
        ({"objective": {"see": {"kind": "features", "project": 1.5}}}, r"objective\.see\.project = 1\.5: .*type int"),
        ({"objective": {"see": {"kind": "features", "seed": True}}}, r"objective\.see\.seed = True: .*type int"),
        ({"objective": {"by": {"kind": "rff", "num": 100.5}}}, r"objective\.by\.num = 100\.5: .*type int"),
        ({"objective": {"by": {"kind": "rff", "seed": "abc"}}}, r"objective\.by\.seed = 'abc': .*type int"),
        (
            {"objective": {"by": {"kind": "mmd", "bandwidth": "wide"}}},
            r"objective\.by\.bandwidth = 'wide': .*type float",
        ),
        ({"augment": {"kind": "dsa", "strategy": 3}}, r"augment\.strategy = 3: a value of type str"),
        ({"augment": {"kind": "dsa", "mode": "Q"}}, r'augment\.mode = "Q": no such choice\. .*Known: I, M, S'),
        ({"formation": {"kind": "tiles", "factor": "x"}}, r"formation\.factor = 'x': a value of type int"),
        ({"init": "rael"}, r'init = "rael": no such start\. Did you mean "real"'),
        ({"init": {"kind": "inversion", "stepz": 9}}, r'init\.stepz: "stepz": no such option of inversion.*"steps"'),
        ({"init": {"kind": "modes", "strength": math.nan}}, r"init\.strength = nan: give a finite number"),
        ({"optim": {"lr": {"z": math.inf}}}, r"optim\.lr\.z = inf: give a finite number"),
        ({"init": {"kind": "inversion", "steps": 0}}, r"init \(inversion\): steps = 0: give at least 1"),
        ({"storage": "int2"}, r'storage = "int2": no such storage\. Did you mean "int'),
        ({"source": {"kind": "skech"}}, r'source\.kind = "skech": no such source\. Did you mean "sketch"'),
        ({"bytes_per_class": 10}, r"give exactly one"),
        ({"objective": "mean"}, r"objective = 'mean': a section of keys"),
    ],
)
def test_mistakes_are_answered_with_what_would_do(table: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(ONE | table)


def test_no_budget_is_refused() -> None:
    with pytest.raises(RecipeError, match="give exactly one"):
        parse_recipe({})


def test_settings_and_overrides() -> None:
    recipe = load_recipe(
        "m3d",
        settings=["optim.lr=0.5", "objective.by.bandwidth=2", "formation.factor=3", "source.arch=mlp", "chunk=7"],
        overrides={"bytes_per_class": 4000, "chunk": None},
    )
    assert recipe.optim.lr == 0.5
    assert recipe.objective.by == Part("mmd", {"bandwidth": 2})
    assert recipe.formation == Part("tiles", {"factor": 3})
    assert recipe.source.arch == "mlp"
    assert recipe.chunk is None
    assert (recipe.images_per_class, recipe.bytes_per_class) == (None, 4000)  # It replaces the recipe's budget.
    assert load_recipe("m3d", settings=["formation=none"]).formation is None
    assert load_recipe("m3d", settings=["objective.by=energy"]).objective.by == Part("energy")
    with pytest.raises(RecipeError, match="both given"):
        load_recipe("m3d", settings=["bytes_per_class=9", "images_per_class=1"])
    with pytest.raises(RecipeError, match="write key=value"):
        parse_setting("optim.lr")
    with pytest.raises(RecipeError, match="steps is a value, not a section"):
        load_recipe("m3d", settings=["steps.more=1"])


def test_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('images_per_class = 2\n[objective]\nby = "energy"\n')
    assert load_recipe(path).name == "mine"
    assert load_recipe(path).objective.by == Part("energy")
    path.write_text("images_per_class = 2\n[source]\nnum_pairs = 2024-05-01\n")
    with pytest.raises(RecipeError, match=r"source\.num_pairs = 2024-05-01: a date is no value of a recipe"):
        load_recipe(path)
    path.write_text("images_per_class = ")
    with pytest.raises(RecipeError, match="not a TOML file"):
        load_recipe(path)
    path.write_bytes(b"\xff")
    with pytest.raises(RecipeError, match="not a TOML file"):
        load_recipe(path)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match="cannot be read as a recipe file"):
        load_recipe(tmp_path / "folder.toml")
    with pytest.raises(InputError, match="no such recipe file"):
        load_recipe(tmp_path / "absent.toml")
    with pytest.raises(InputError, match=r'"dm-gna": no such recipe\. Did you mean "dm-gan"'):
        load_recipe("dm-gna")


@pytest.mark.parametrize(
    ("budget", "storage", "size", "rows", "stored"),
    [
        (784, "int8", 16, 48, 776),
        (784, "int8", 64, 12, 776),
        (784, "int4", 16, 97, 784),
        (784, "int4", 15, 97, 784),
        (784, "fp16", 16, 24, 772),
        (784, "fp32", 16, 12, 772),
        (20, "fp32", 4, 1, 20),
    ],
)
def test_bytes_become_rows(budget: int, storage: str, size: int, rows: int, stored: int) -> None:
    recipe = parse_recipe({"bytes_per_class": budget, "storage": storage})
    assert recipe.rows_per_class({"z": (size,)}) == rows
    assert recipe.stored_bytes_per_class({"z": (size,)}) == stored <= budget


def test_a_budget_below_one_row_names_the_least() -> None:
    recipe = parse_recipe({"bytes_per_class": 784, "storage": "int8"})
    with pytest.raises(RecipeError, match="takes 792 bytes in int8"):
        recipe.rows_per_class({"x": (1, 28, 28)})


def test_every_part_cites_entries_that_exist() -> None:
    from importlib import import_module

    networks = [getattr(import_module(path.split(":")[0]), path.split(":")[1]) for path in ARCHITECTURES.values()]
    tables = (DISCREPANCIES, REPRESENTATIONS, AUGMENTS, FORMATIONS, DECODERS, OBJECTIVES, PENALTIES)
    parts = [part for table in tables for part in table.values()] + networks
    keys = {key for part in parts for key in getattr(part, "cite", ())}
    assert keys
    assert keys <= set(references())


def test_credit_follows_the_parts() -> None:
    plain = cite(parse_recipe(ONE | {"objective": {"by": "energy"}, "augment": "none", "optim": {"kind": "sgd"}}))
    assert "szekely2013energy" in plain
    assert "zhao2021dsa" not in plain
    assert "gretton2012mmd" not in plain
    assert plain.count("@") == plain.count("\n}\n")
    assert "xiao2017fashion" in cite(load_recipe("dm"), data="fashion-mnist-mini")
    assert cite(load_recipe("dm"), data=str(Path(__file__).parent)) == cite(load_recipe("dm")), "one's own folder"
    for wrong in ("fashion-mnis", ""):
        with pytest.raises(DataError, match=r"no such name\..*Known: cifar10, .*not a folder or file either"):
            cite(load_recipe("dm"), data=wrong)
    with pytest.raises(RecipeError, match=r'"zhao2023md".*Did you mean "zhao2023dm"'):
        cite(parse_recipe(ONE | {"cite": ["zhao2023md"]}))


def test_what_cannot_be_credited_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'"convnt": no such architecture\. Did you mean "convnet"'):
        cite(parse_recipe(ONE | {"source": {"arch": "convnt"}}))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        cite(parse_recipe(ONE | {"decoder": str(tmp_path)}))


def test_every_entry_has_author_title_and_year() -> None:
    for key, entry in references().items():
        for field in ("author", "title", "year"):
            assert f" {field} " in entry.replace("=", " = "), f"{key} lacks {field}"
