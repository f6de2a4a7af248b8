"""Bundles of every format version ever written still load and decode to what they decoded to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_parts import SPEC

from latentdc.bundle import layout, load_bundle
from latentdc.latents import decode

GOLDEN = sorted((Path(__file__).parent / "golden").glob("version-*"))


def test_every_version_has_a_golden_bundle() -> None:
    assert [path.name for path in GOLDEN] == [f"version-{number}" for number in range(1, layout.VERSION + 1)]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_golden_bundle_loads(golden: Path) -> None:
    bundle, wanted = load_bundle(golden / "bundle"), load_file(golden / "expected.safetensors")
    assert torch.equal(bundle.bank.latents()["z"], wanted["z"])
    batch = decode(bundle.decoder, bundle.bank, formation=bundle.formation)
    for name in ("y", "owner", "w"):
        assert torch.equal(getattr(batch, name), wanted[name])
    torch.testing.assert_close(batch.x, wanted["x"], rtol=0, atol=1e-5)
    assert bundle.spec == SPEC
    assert (bundle.provenance["seed"], bundle.hints, bundle.report) == (0, {"augment": "dsa"}, {"rows": []})
    assert (bundle.storage.latents, bundle.storage.scales, bundle.decoder_public) == (24, 12, "tiny-gan")
