"""Your own images: a folder with one folder per class, condensed in pixels and written out as image files again.

Run: python examples/own_data.py
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

from latentdc import CondensationOutput, CondensationPipeline, DatasetSynthesisPipeline, open_data


def draw_shapes(folder: Path, *, per_class: int = 40, side: int = 20) -> Path:
    """Stand-in for your photographs: circles and squares of random size, place and colour, a little too large."""
    rng = random.Random(0)
    for name in ("circle", "square"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            image = Image.new("RGB", (side, side), "white")
            radius, x, y = rng.uniform(4, 8), rng.uniform(8, side - 8), rng.uniform(8, side - 8)
            box = (x - radius, y - radius, x + radius, y + radius)
            colour = tuple(rng.randrange(200) for _ in range(3))
            draw = ImageDraw.Draw(image)
            (draw.ellipse if name == "circle" else draw.rectangle)(box, fill=colour)
            image.save(folder / name / f"{number:03d}.png")
    return folder


def main(folder: str | Path = "runs/own-data", *, steps: int = 100) -> CondensationOutput:
    """Condense two images per class."""
    root = Path(folder)
    data = open_data(draw_shapes(root / "photographs"), size=16)
    spec = data.train.spec
    print(f"{len(data.train)} images of {spec.image_shape}, classes {', '.join(spec.class_names)}")

    pipe = CondensationPipeline.from_pretrained("pixels")
    out = pipe(data, "dm", images_per_class=2, steps=steps, settings=["source.width=32"], out=root / "bundle")

    synth = DatasetSynthesisPipeline.from_pretrained(out.path)
    print("images written to", synth.to_folder(root / f"condensed-{steps}"))
    return out


if __name__ == "__main__":
    main()
