"""The command line's frame: quick, quiet, one line per mistake, JSON on standard output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from latentdc.cli.__main__ import app
from latentdc.evaluate.protocols import PROTOCOLS

CONDENSE = ("condense", "--data", "fashion-mnist-mini", "--out", "x")
COMMANDS = ["condense", "sketch", "fit", "evaluate", "decode", "convert", "inspect", "push", "recipes", "cite"]
FITS = ["fit gan", "fit tune", "fit autoencoder", "fit diffusion"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="latentdc")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['latentdc', '--help']\n"
        "from latentdc.cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = [m for m in ('torch', 'numpy', 'diffusers', 'transformers', 'PIL') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, *FITS, "sketch merge", "sketch subtract"])
def test_every_help_teaches_with_an_example(command: str) -> None:
    shown = run(*command.split(), "--help")
    assert shown.exit_code == 0
    assert "Example" in shown.stdout
    assert f"latentdc {command}" in shown.stdout.split("Example")[1]


@pytest.mark.parametrize("command", ["condense", "sketch", "evaluate", *FITS])
def test_help_says_what_happens_to_images(command: str) -> None:
    from latentdc.data.decode import HOW_IT_RESIZES

    told = " ".join(run(*command.split(), "--help").stdout.split())
    assert HOW_IT_RESIZES in told
    assert "of each class; no class may have fewer" in told


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name not in ("fit", "cite")), *FITS])
def test_scripts_can_ask_for_json(command: str) -> None:
    assert "--json" in run(*command.split(), "--help").stdout


def test_version() -> None:
    import latentdc

    assert run("--version").stdout.strip() == latentdc.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["condense", "--data", "fashion-mnist-mimi", "--out", "x"], 'Did you mean "fashion-mnist-mini"?'),
        (["decode", "nowhere", "--out", "x"], "nowhere"),
        (["inspect", "nowhere"], "no bundle"),
        (["sketch"], "needs --data and --out"),
        (["sketch", "merge", "a.safetensors", "b.safetensors", "--out", "x"], "a.safetensors"),
        (["cite", "dm", "--data", "nonsense"], 'data set "nonsense": no such name'),
        (["cite", "dm-gam"], 'Did you mean "dm-gan"?'),
        (["condense", "--data", "fashion-mnist-mini", "--out", "x", "--set", "steps"], "key=value"),
        ([*CONDENSE, "--recipe", "dm-gam"], 'Did you mean "dm-gan"?'),
        ([*CONDENSE, "--recipe", "mine.toml"], "mine.toml: no such recipe file"),
        ([*CONDENSE, "--images-per-class", "0"], "images_per_class = 0: give at least 1"),
        ([*CONDENSE, "--bytes-per-class", "0"], "bytes_per_class = 0: give at least 1"),
        ([*CONDENSE, "--bytes-per-class", "60"], "one row of this decoder takes 68 bytes in fp32"),
        ([*CONDENSE, "--images-per-class", "1", "--bytes-per-class", "784"], "give exactly one"),
        ([*CONDENSE, "--recipe", "."], '".": no such recipe'),
        ([*CONDENSE, "--device", "gpu"], '"gpu": no such device'),
        (["sketch", *CONDENSE[1:], "--device", "gpu"], '"gpu": no such device'),
        (["fit", "gan", *CONDENSE[1:], "--steps", "1", "--device", "gpu"], '"gpu": no such device'),
        (["evaluate", "x", *CONDENSE[1:], "--device", "gpu"], '"gpu": no such device'),
        ([*CONDENSE, "--steps", "-1"], "steps = -1: give at least 1, or 0 to keep the start"),
        ([*CONDENSE, "--sketch", "nowhere.safetensors"], "nowhere.safetensors: no such sketch"),
        ([*CONDENSE, "--decoder", "nowhere"], '"nowhere": no such name'),
        *(([*CONDENSE, "--classes", none], "the class subset is empty. Name classes (T-shirt") for none in (",", "")),
        ([*CONDENSE, "--limit", "1001"], "Ask for at most 1000 per class"),
        ([*CONDENSE, "--classes", "Bag,Hat"], '"Hat": no such class'),
        (["condense", "--data", "nowhere/images", "--out", "x"], '"nowhere/images": no such name'),
        (["condense", "--data", "cifar10", "--out", "x"], "cifar10 was not found in"),
        (
            ["evaluate", "nowhere", "--data", "fashion-mnist-mini"],
            '"nowhere": there is no such bundle, decoder or folder',
        ),
        (["sketch", "--data", "fashion-mnist-mini", "--like", "nowhere", "--out", "x"], "nowhere: no such sketch"),
    ],
)
def test_a_mistake_is_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, no_data_elsewhere: None
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


FOR_DATA = ("--data", "fashion-mnist-mini", "--out")


@pytest.mark.parametrize(
    "command",
    [
        ("condense", *FOR_DATA),
        ("condense", "--dry-run", *FOR_DATA),
        ("fit", "gan", "--steps", 1, *FOR_DATA),
        ("sketch", *FOR_DATA),
        ("evaluate", "nowhere", *FOR_DATA),
        ("evaluate", "nowhere", "--runs", "notes.txt/runs.jsonl", *FOR_DATA),
        ("decode", "nowhere", "--out"),
        ("decode", "nowhere", "--format", "pt", "--out"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    result = run(*command, "new" if "--runs" in command else "notes.txt/x")
    assert result.exit_code == 2, result.exception
    assert "notes.txt is a file; choose another place (--out)" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_report_is_never_put_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = run("evaluate", "nowhere", *FOR_DATA, tmp_path / "notes.txt")
    assert (result.exit_code, "notes.txt is a file" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "command", [("condense", *FOR_DATA), ("condense", "--dry-run", *FOR_DATA), ("fit", "gan", "--steps", 1, *FOR_DATA)]
)
def test_the_working_folder_is_a_place_like_any_other(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    result = run(*command, ".")
    assert result.exit_code == 2, result.exception
    assert f"{tmp_path}: exists and" in result.stderr


def test_what_the_system_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "images/00001.png")

    monkeypatch.setattr("latentdc.pipelines.synthesis.load_bundle", full)
    result = run("decode", Path(__file__).parent, "--out", "x")
    assert result.exit_code == 2
    assert "error: images/00001.png: No space left on device. Check the paths" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_wrong_options_exit_with_two() -> None:
    assert run("condense", "--no-such-option").exit_code == 2
    assert run("decode", "--format", "gif").exit_code == 2


def test_interrupt_and_divergence_have_their_own_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdc.bundle import loading
    from latentdc.errors import DivergenceError

    for error, code in ((KeyboardInterrupt(), 130), (DivergenceError("step 3: NaN"), 1)):

        def stop(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(loading, "load_bundle", stop)
        monkeypatch.setattr("latentdc.pipelines.synthesis.load_bundle", stop)
        result = run("decode", Path(__file__).parent, "--out", "x")
        assert result.exit_code == code
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("told", [True, False])
def test_compile_reaches_the_recipe(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdc.pipelines.condensation import CondensationPipeline

    def estimate(
        pipe: CondensationPipeline,
        data: object,
        recipe: str,
        *,
        sketch: object,
        out: Path,
        resume: bool,
        **changes: Any,
    ) -> dict:
        return {"compile": pipe.prepare(data, recipe, **changes)[1].recipe.compile}

    monkeypatch.setattr(CondensationPipeline, "estimate", estimate)
    shown = run(*CONDENSE, "--dry-run", "--json", *(["--compile"] if told else [])).stdout
    assert json.loads(shown) == {"compile": told}


def test_recipes_as_json_and_text() -> None:
    found = json.loads(run("recipes", "--json").stdout)
    assert {"dm", "dm-gan", "m3d"} <= {recipe["name"] for recipe in found}
    text = run("recipes").stdout
    assert all(recipe["name"] in text for recipe in found)
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "features by mean + pairwise" in lines["it-gan"]
    assert "prototypes  -" in lines["d4m"]  # nothing is matched where no step is taken
    assert "by mean" not in lines["d4m"]


def test_cite_prints_bibtex() -> None:
    assert "@" in run("cite", "dm").stdout
    assert "zhao2023dm" in run("cite", "dm").stdout


def test_every_protocol_is_named_in_the_help() -> None:
    shown = re.sub(r"\s+", " ", CliRunner().invoke(app, ["evaluate", "--help"]).stdout)
    assert not [name for name in PROTOCOLS if name not in shown]
