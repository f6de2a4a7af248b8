"""The main job in Python: condense, decode, and measure beside honest baselines.

Run: python examples/quickstart.py
"""

from __future__ import annotations

from pathlib import Path

from latentdc import CondensationPipeline, DatasetSynthesisPipeline, open_data
from latentdc.evaluate import Protocol, Report, evaluate
from latentdc.report import table


def main(
    out: str | Path = "runs/quickstart",
    *,
    limit: int | None = None,
    pairs: int = 10,
    steps: int = 150,
    epochs: int = 300,
    width: int | None = None,
) -> Report:
    """One latent per class of ``fashion-mnist-mini``, through the generator that ships with latentdc."""
    data = open_data("fashion-mnist-mini", limit=limit)

    pipe = CondensationPipeline.from_pretrained("fashion-mnist-gan")
    small = {"source.num_pairs": pairs, "source.width": width}
    made = pipe(data, "dm-gan", images_per_class=1, steps=steps, overrides=small, out=out)
    print(made.bundle.storage.bytes_per_class, "bytes per class; picture:", made.path / "grid.png")

    synth = DatasetSynthesisPipeline.from_pretrained(made.path)
    print(len(synth(images_per_class=1, output_type="pil").images), "PIL images")

    report = evaluate(made.bundle, data, Protocol("short", epochs=epochs), seeds=1, width=width)
    print(table(report))
    return report


if __name__ == "__main__":
    main()
