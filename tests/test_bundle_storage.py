"""What a bundle costs, in lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_parts import write_bundle

from latentdc.bundle import load_bundle
from latentdc.bundle.storage import Storage


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_bytes_add_up_to_the_files(bundle: Path) -> None:
    storage = load_bundle(bundle).storage
    assert storage.total == sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert storage.private_decoder + storage.payload < storage.total


@pytest.mark.parametrize(
    ("storage", "latents", "scales"), [("fp32", 96, 0), ("fp16", 48, 0), ("int8", 24, 12), ("int4", 12, 12)]
)
def test_storage_lines(tmp_path: Path, storage: str, latents: int, scales: int) -> None:
    lines = load_bundle(write_bundle(tmp_path / "b", storage=storage, raw_set_bytes=6500)).storage
    assert (lines.latents, lines.scales, lines.labels) == (latents, scales, 12)
    assert lines.bytes_per_class == (latents + scales + 12) / 3
    assert lines.pixels_uint8 == 6 * 4 * 64
    assert lines.to_dict()["bytes_per_class"] == lines.bytes_per_class
    text = "\n".join(lines.lines())
    for part in ("latents", "+ labels", "+ private decoder", "+ public decoder", "6,500 bytes", "1,536 bytes"):
        assert part in text


def test_a_set_larger_than_its_images_is_no_compression() -> None:
    lines = Storage(num_classes=1, latents=400_000, scales=0, labels=0, pixels_uint8=7_840, raw_set=800_000).lines()
    assert lines[-2].endswith("7,840 bytes = 0.02 x latents and labels")
    assert lines[-1].endswith("800,000 bytes = 2.0 x latents and labels")


def test_a_public_decoder_is_a_line_of_its_own(tmp_path: Path, bundle: Path) -> None:
    private = load_bundle(bundle).storage
    public = load_bundle(write_bundle(tmp_path / "p", decoder_public="tiny")).storage
    assert private.private_decoder == public.public_decoder > 0
    assert private.public_decoder == public.private_decoder == 0
    assert private.bytes_per_class == public.bytes_per_class
