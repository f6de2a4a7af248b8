"""The README keeps its promises: the two commands, the snippets, the names it mentions, the tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentdc import report
from latentdc.cli.__main__ import app

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
SHELL = [body for language, body in BLOCKS if language == "sh"]
PYTHON = [body for language, body in BLOCKS if language == "python"]


def test_the_first_two_blocks_are_the_two_commands() -> None:
    assert len(SHELL) == 2, "only the two commands stand in sh blocks; others are text"
    main, tests = SHELL
    assert "pip install" in main
    assert "latentdc condense" in main
    assert "latentdc evaluate" in main
    assert "pytest" in tests
    assert "[dev]" in tests


def mentioned() -> list[list[str]]:
    """Every ``latentdc …`` line in the README's blocks, as arguments."""
    lines = [line for language, body in BLOCKS if language in ("sh", "text") for line in body.splitlines()]
    return [shlex.split(line)[1:] for line in lines if re.match(r"(\.venv/bin/)?latentdc \w", line)]


@pytest.mark.parametrize("arguments", mentioned(), ids=" ".join)
def test_options_exist(arguments: list[str]) -> None:
    words = [word for word in arguments if not word.startswith("-")]
    command = (
        arguments[:2]
        if arguments[0] in ("fit", "sketch") and words[1] in ("gan", "autoencoder", "diffusion", "merge", "subtract")
        else arguments[:1]
    )
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert {word for word in arguments if word.startswith("--")} <= set(re.findall(r"--[\w-]+", shown.stdout))


def test_every_command_is_listed() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout.split("Commands:")[1]
    commands = [line.split()[0] for line in shown.splitlines() if re.match(r"  \w", line)]
    assert len(commands) == 12
    assert not [command for command in commands if f"`latentdc {command}" not in TEXT]


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    ours, plain = PYTHON
    quick = ours.replace("steps=200", 'steps=1, settings=["source.width=8", "source.num_per_class=16"]')
    assert quick != ours
    exec(compile(quick, "README.md", "exec"), {})  # the snippet is this repository's own text
    assert "bytes per class" in capsys.readouterr().out
    assert "trust_remote_code=True" in plain
    namespace: dict[str, object] = {}
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    exec(compile(plain, "README.md", "exec"), namespace)
    assert tuple(namespace["images"].shape) == (10, 1, 28, 28)


def test_linked_files_exist() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert targets
    assert not [target for target in targets if not (REPOSITORY / target).exists()]


def test_tables_are_those_of_the_reports(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(TEXT, encoding="utf-8")
    assert not report.update_tables(copy, REPOSITORY / "reports"), (
        "python -c \"from latentdc.report import update_tables; update_tables('README.md', 'reports')\""
    )
