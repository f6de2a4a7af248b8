"""Bundles that carry somebody's own decoder class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from own_generator import Generator
from tiny_parts import SPEC, tiny_bank, tiny_decoder

from latentdc.bundle import attach_report, layout, load_bundle, requantise, save_bundle
from latentdc.errors import BundleError, InputError
from latentdc.latents import decode

OWN = """
import torch
{line}
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin


class Painter(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, side: int = 8):
        super().__init__()
        self.side = side
        self.register_buffer("base", torch.linspace(0, 1, side * side).reshape(1, 1, side, side))

    latent_shapes = {{"a": (1, 1, 1)}}
    image_shape = (1, 8, 8)

    def prior(self, owner, rng):
        return {{"a": torch.rand(len(owner), 1, 1, 1, generator=rng)}}

    def forward(self, z, owner):
        return z["a"] * self.base
"""


def own_class(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import importlib

    name = f"own_{abs(hash(line)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(OWN.format(line=line))
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name).Painter


def test_somebodys_own_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = own_class(tmp_path, "import math", monkeypatch)
    decoder = painter().eval()
    bank = tiny_bank(decoder)
    save_bundle(tmp_path / "b", bank=bank, decoder=decoder, spec=SPEC, provenance={})
    with pytest.raises(BundleError, match=r"load_bundle\(folder, classes=\[Painter\]\)"):
        load_bundle(tmp_path / "b")
    back = load_bundle(tmp_path / "b", classes=[painter])
    assert torch.equal(decode(back.decoder, back.bank).x, decode(decoder, bank).x)


def test_own_code_must_stand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = own_class(tmp_path, "import latentdc.errors", monkeypatch)().eval()
    with pytest.raises(InputError, match=r"line 3: Painter travels inside .* it imports latentdc.errors"):
        save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={})


def test_every_installed_component_can_travel() -> None:
    for kind in layout.CLASSES.values():
        assert kind.__name__ in layout.portable_source(kind)


def test_a_decoder_of_ones_own_class_in_another_storage_and_with_a_report(tmp_path: Path) -> None:
    decoder = tiny_decoder("module")
    bundle = save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={})
    attach_report(bundle, {"rows": [1]})
    assert load_bundle(bundle, classes=[Generator]).report == {"rows": [1]}
    with pytest.raises(InputError, match="is made of own_generator:Generator"):
        requantise(bundle, tmp_path / "small", "int8")
    small = load_bundle(requantise(bundle, tmp_path / "small", "int8", classes=[Generator]), classes=[Generator])
    assert small.bank.storage == "int8"
    card = (bundle / "README.md").read_text()
    assert "from own_generator import Generator\n" in card
    assert 'load_bundle("path", classes=[Generator])' in card
