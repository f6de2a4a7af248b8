"""A wheel carries what the commands need: recipes, checkpoints and the small data set."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
USE = """
import latentdc.resources
from latentdc.data.sources import open_data
from latentdc.decoders.reference import default_decoder, load_decoder
from latentdc.recipe import load_recipe

spec = open_data("fashion-mnist-mini").train.spec
print(latentdc.resources.__file__, default_decoder(spec), tuple(load_decoder(default_decoder(spec)).image_shape))
print(load_recipe("dm-gan").title)
"""


def test_an_installed_wheel_finds_recipe_decoder_and_data(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, title = done.stdout.splitlines()
    package, decoder, shape = found.split(" ", 2)
    assert Path(package).is_relative_to(installed), "the clone must not be what is tested"
    assert Path(decoder) == installed / "latentdc" / "_shipped" / "checkpoints" / "fashion-mnist-gan"
    assert shape == "(1, 28, 28)"
    assert title == "Distribution matching through a generator, from a sketch"
