"""Somebody's own generator, from a state dictionary to a folder and a bundle: its code runs for who names it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from own_generator import Generator, Sealed
from test_cli_run import run, write
from typer.testing import CliRunner

from latentdc.bundle import load_bundle
from latentdc.cli.__main__ import app
from latentdc.convert.module import Generator as Given
from latentdc.convert.run import convert
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import load_decoder
from latentdc.errors import BundleError, InputError
from latentdc.latents import decode
from latentdc.pipelines.condensation import CondensationPipeline
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline
from latentdc.seeding import global_seed, stream

NAME = "own_generator:Generator"
OWNER = torch.tensor([0, 2, 1])


def weights(tmp_path: Path, made: Any, prefix: str = "") -> Path:
    path = tmp_path / "G.pth"
    torch.save({"state_dict": {prefix + name: value for name, value in made.state_dict().items()}}, path)
    return path


def generator(**arguments: int) -> Generator:
    with global_seed(0, "own"):
        made = Generator(**arguments)
        made.norm.running_mean.normal_()
    return made.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unconditional generator as a decoder folder."""
    return convert(weights(tmp_path, generator()), "module", tmp_path / "own-gan", generator=Given(NAME, (4,)))


@pytest.mark.parametrize("prefix", ["", "module.", "G_ema."])
def test_gives_the_images_of_the_class(prefix: str, tmp_path: Path) -> None:
    made = generator(classes=3, width=6)
    given = Given(NAME, (4,), "one-hot", 3, arguments={"classes": 3, "width": 6})
    folder = convert(weights(tmp_path, made, prefix), "module", tmp_path / "out", generator=given)
    decoder = load_decoder(folder, classes=[Generator])
    z = decoder.prior(OWNER, stream(0, "own"))
    with torch.no_grad():
        want = made(z["z"], torch.nn.functional.one_hot(OWNER, 3).float()) / 2 + 0.5
    torch.testing.assert_close(decoder(z, OWNER), want)
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    card = json.loads((folder / "card.json").read_text())
    assert (card["kind"], card["generator"], card["arguments"]) == ("module", NAME, {"classes": 3, "width": 6})
    assert card["layout"] == f"weights of {NAME}, loaded whole"
    assert "from own_generator import Generator" in (folder / "README.md").read_text()


def test_a_prefix_may_be_part_of_the_names(tmp_path: Path) -> None:
    made = Sealed().eval()
    given = Given("own_generator:Sealed", (4,))
    decoder = load_decoder(
        convert(weights(tmp_path, made), "module", tmp_path / "out", generator=given), classes=[Sealed]
    )
    assert torch.equal(decoder.module.generator.last.weight, made.generator.last.weight)


def test_code_that_a_file_names_never_runs(folder: Path, tmp_path: Path) -> None:
    said = rf"is made of {NAME}, whose code would run\. .*--own {NAME}"
    with pytest.raises(InputError, match=said):
        load_decoder(folder)
    with pytest.raises(InputError, match=said):
        load_decoder(folder, classes=[Sealed])
    (folder / "card.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "trap.py").write_text("raise SystemExit('ran')\n")
    (folder / "config.json").write_text(json.dumps({**config, "generator": "trap:Trap"}))
    with pytest.raises(InputError, match="is made of trap:Trap, whose code would run"):
        load_decoder(folder, classes=[Generator])
    assert "trap" not in sys.modules


def test_condense_and_load_again(folder: Path, tiny_store: ClassStore, tmp_path: Path) -> None:
    pipe = CondensationPipeline.from_pretrained(folder, component_classes=[Generator]).to("cpu")
    pipe.set_progress_bar_config(disable=True)
    out = pipe(tiny_store, "dm-gan", out=tmp_path / "b", steps=2, settings=("source.width=8", "source.num_pairs=1"))
    assert out.bundle.bank.owner.tolist() == [0, 1, 2]
    assert out.bundle.provenance["decoder_name"].startswith("ModuleDecoder@sha256:")
    with pytest.raises(InputError, match="whose code would run"):
        load_bundle(tmp_path / "b")
    back = load_bundle(tmp_path / "b", classes=[Generator])
    want = decode(out.bundle.decoder, out.bundle.bank).x
    assert torch.equal(decode(back.decoder, back.bank).x, want)
    synth = DatasetSynthesisPipeline.from_pretrained(tmp_path / "b", component_classes=[Generator])
    assert torch.equal(synth(output_type="pt").images, want.clamp(0, 1))
    assert f"ModuleDecoder of `{NAME}`, whose package must be installed" in (tmp_path / "b" / "README.md").read_text()


def test_the_commands(tiny_store: ClassStore, tmp_path: Path, make_store: Any) -> None:
    for split, seed in (("train", 0), ("test", 1)):
        write(make_store(6, seed=seed), tmp_path / "data" / split)
    file = weights(tmp_path, generator(width=5))
    form = ("--kind", "module", "--module", NAME, "--z-shape", "4", "--arguments", '{"width": 5}')
    shown = json.loads(run("convert", file, *form, "--out", tmp_path / "own", "--json"))
    assert shown["card"]["latents"] == {"z": [4]}
    own, out = ("--own", NAME), tmp_path / "bundle"
    small = ("--recipe", "dm-gan", "--steps", 1, "--num-pairs", 1, "--set", "source.width=8")
    run("condense", "--data", tmp_path / "data", "--decoder", tmp_path / "own", *own, *small, "--out", out)
    assert "3 images" in run("decode", out, *own, "--out", tmp_path / "images")
    told = run("evaluate", out, *own, "--data", tmp_path / "data", "--protocol", "quick", "--seeds", 1, "--width", 4,
               "--baselines", "undistilled", "--students", "mlp")  # fmt: skip
    assert "undistilled" in told
    passed = run("evaluate", tmp_path / "own", *own, "--data", tmp_path / "data", "--protocol", "quick", "--seeds", 1,
                 "--width", 4, "--baselines", "", "--students", "mlp")  # fmt: skip
    assert "own: data" in passed
    failed = CliRunner().invoke(app, ["decode", str(out), "--out", str(tmp_path / "more")])
    assert (failed.exit_code, "whose code would run" in failed.stderr) == (2, True)


REFUSALS: dict[str, tuple[Any, str]] = {
    "no class": (Given("own_generator:Gen", (4,)), '"own_generator:Gen": cannot be imported'),
    "a factory": (Given("torch.nn.utils:skip_init", (4,)), "with arguments"),
    "arguments": (Given(NAME, (4,), arguments={"width": 0}), "width must be at least 1"),
    "other arguments": (
        Given(NAME, (4,), arguments={"width": 7}),
        r"first.weight is \(16, 4\), the class makes it \(7",
    ),
    "latent": (Given(NAME, (5,)), r"Generator does not decode latents \(n, 5\)"),
    "layers": (
        Given("torch.nn:ConvTranspose2d", (4, 1, 1), arguments={"in_channels": 4, "out_channels": 1, "kernel_size": 8}),
        r"missing weights bias, weight; left over first.bias.*Give the class \(--module\)",
    ),
    "none": (None, "--kind module: --module and --z-shape belong to --kind module; give both with it"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str, tmp_path: Path) -> None:
    given, said = REFUSALS[case]
    with pytest.raises(InputError, match=said):
        convert(weights(tmp_path, generator()), "module", tmp_path / "out", generator=given)
    assert not (tmp_path / "out").exists()


def test_other_refusals(tmp_path: Path) -> None:
    file = weights(tmp_path, generator())
    with pytest.raises(InputError, match="a module has the space z and no truncation; leave both out"):
        convert(file, "module", tmp_path / "out", space="w", generator=Given(NAME, (4,)))
    with pytest.raises(InputError, match="--kind studiogan: --module and --z-shape belong to --kind module"):
        convert(file, "studiogan", tmp_path / "out", generator=Given(NAME, (4,)))
    torch.save({"state_dict": {}, "code": Generator()}, tmp_path / "code.pth")
    with pytest.raises(InputError, match=r"not unpickled, because it names .*own_generator\.Generator"):
        convert(tmp_path / "code.pth", "module", tmp_path / "out", generator=Given(NAME, (4,)))
    (tmp_path / "torn.pth").write_bytes(file.read_bytes()[:500])
    with pytest.raises(BundleError, match="no readable checkpoint"):
        convert(tmp_path / "torn.pth", "module", tmp_path / "out", generator=Given(NAME, (4,)))
    broken = generator()
    broken.last.bias.data[0] = torch.nan
    with pytest.raises(InputError, match="images that are not finite"):
        convert(weights(tmp_path, broken), "module", tmp_path / "out", generator=Given(NAME, (4,)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give the shape of its latent too, for instance --z-shape 128"),
        (("--z-shape", "a"), "--z-shape a: give whole numbers"),
        (("--z-shape", "4", "--arguments", "{"), "--arguments {: no JSON"),
        (("--z-shape", "4", "--arguments", "3"), "--arguments 3: give a JSON object"),
        (("--z-shape", "4", "--output-range", "1"), "--output-range 1: give -1,1 or 0,1"),
        (("--z-shape", "4", "--output-range", "0,2"), "output_range = (0.0, 2.0): give (-1, 1) or (0, 1)"),
        (("--z-shape", "4", "--labels", "indx"), 'Did you mean "index"'),
    ],
)
def test_options_that_cannot_be_read(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    file = weights(tmp_path, generator())
    command = ["convert", str(file), "--kind", "module", "--module", NAME, "--out", str(tmp_path / "out"), *options]
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 2
    assert said in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
