"""Writes the golden bundle of the current format version: ``PYTHONPATH=.:tests python tests/golden/make_golden.py``.

Run it once when the version goes up, and never over the bundle of an older version:
those are kept as they were written.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from tiny_parts import SPEC, tiny_bank, tiny_decoder, tiny_formation

from latentdc.bundle import layout, save_bundle
from latentdc.latents import decode


def main() -> None:
    root = Path(__file__).parent / f"version-{layout.VERSION}"
    decoder, formation = tiny_decoder("gan"), tiny_formation("tiles")
    bank = tiny_bank(decoder, extras=True).quantise("int8")
    save_bundle(
        root / "bundle",
        bank=bank,
        decoder=decoder,
        formation=formation,
        spec=SPEC,
        provenance={"recipe": "golden", "seed": 0},
        hints={"augment": "dsa"},
        report={"rows": []},
        decoder_public="tiny-gan",
        raw_set_bytes=6500,
    )
    batch = decode(decoder, bank, formation=formation)
    wanted = {"x": batch.x, "y": batch.y, "owner": batch.owner, "w": batch.w, **bank.latents()}
    save_file({name: value.contiguous() for name, value in wanted.items()}, root / "expected.safetensors")


if __name__ == "__main__":
    main()
