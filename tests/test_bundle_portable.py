"""The format's proof: a bundle decodes bit-equal where latentdc cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_parts import SPEC, tiny_bank, tiny_decoder, tiny_formation

from latentdc.bundle import load_bundle, save_bundle
from latentdc.latents import decode

READER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "latentdc":
            raise ImportError("latentdc is not installed here")

sys.meta_path.insert(0, Absent())
try:
    import latentdc
except ImportError:
    pass
else:
    raise SystemExit("latentdc could be imported: the test would prove nothing")

import diffusers, torch

torch.set_num_threads(int(sys.argv[2]))
out = {}
for folder in sys.argv[3:]:
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True).to("cpu")
    pipe.set_progress_bar_config(disable=True)
    every = pipe(batch_size=2, output_type="pt")
    first = pipe(images_per_class=1, classes=["bag", 0], output_type="pt")
    grey = pipe(images_per_class=1, output_type="pil").images[0]
    out[folder] = {
        "images": every.images, "labels": every.labels, "weights": every.get("weights"),
        "first": first.images, "first_labels": first.labels, "latents": pipe(output_type="latent").images,
        "pil": [grey.mode, list(grey.size), list(grey.getdata())],
    }
assert "latentdc" not in sys.modules
torch.save(out, sys.argv[1])
"""

CASES = {
    "gan-tiles": ("gan", "tiles", "fp32", False),
    "gan-int8": ("gan", None, "int8", False),
    "gan-int4": ("gan", None, "int4", False),
    "pixels-fp16-soft": ("pixels", "tiles", "fp16", True),
    "autoencoder-fp16": ("autoencoder", None, "fp16", False),
    "diffusion-int8": ("diffusion", None, "int8", False),
    "pixels-int4-soft": ("pixels", None, "int4", True),
    "diffusion-dit": ("diffusion-dit", "tiles", "fp32", False),
    "diffusion-guided": ("diffusion-guided", None, "fp32", False),
}


@pytest.fixture(scope="module")
def read_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, object]]]:
    """Bundles of all cases, and what one isolated interpreter read from them."""
    root = tmp_path_factory.mktemp("bundles")
    for name, (decoder, formation, storage, extras) in CASES.items():
        module = tiny_decoder(decoder)
        save_bundle(
            root / name,
            bank=tiny_bank(module, extras=extras).quantise(storage),
            decoder=module,
            formation=tiny_formation(formation),
            spec=SPEC,
            provenance={"seed": 0},
        )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    environment |= {"HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "home")}
    folders = [str(root / name) for name in CASES]
    command = [sys.executable, "-I", "-c", READER, str(root / "out.pt"), str(torch.get_num_threads()), *folders]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot run with" not in done.stderr, "labels stored in fp16 do not make it a pipeline in fp16"
    read = torch.load(root / "out.pt", weights_only=True)
    return root, {name: read[str(root / name)] for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_reads_bit_equal_without_latentdc(case: str, read_elsewhere) -> None:
    root, read = read_elsewhere
    got, bundle = read[case], load_bundle(root / case)
    ours = decode(bundle.decoder, bundle.bank, chunk=2, formation=bundle.formation)
    assert torch.equal(got["images"], ours.x.clamp(0, 1))
    assert len(got["images"]) == bundle.bank.num_rows * (4 if bundle.formation is not None else 1)
    soft = bundle.bank.soft is not None
    assert torch.equal(got["labels"], ours.y if soft else ours.owner)
    assert (got["weights"] is None) == (ours.w is None)
    if ours.w is not None:
        assert torch.equal(got["weights"], ours.w)
    for name, value in bundle.bank.latents().items():
        assert torch.equal(got["latents"][name], value)


@pytest.mark.parametrize("case", CASES)
def test_prefixes_and_pil_without_latentdc(case: str, read_elsewhere) -> None:
    root, read = read_elsewhere
    got, bundle = read[case], load_bundle(root / case)
    expands = 1 if bundle.formation is None else 4
    starts = [row * expands for row in bundle.bank.rows([2, 0], 1).tolist()]
    torch.testing.assert_close(got["first"], got["images"][starts], rtol=0, atol=1e-6)
    assert len(got["first_labels"]) == 2
    mode, size, levels = got["pil"]
    assert (mode, size) == ("L", [8, 8])
    assert levels == (got["images"][0, 0] * 255).round().flatten().int().tolist()
