"""A decoder of your own: low-frequency cosine images, 36 numbers instead of 784 pixels, and a bundle that carries it.

The class lives in a file of its own that imports torch and diffusers only: the file travels inside the bundle.

Run: python examples/own_decoder.py
"""

from __future__ import annotations

from pathlib import Path

from cosine_decoder import CosineDecoder

from latentdc import DatasetSynthesisPipeline, Match, open_data, save_bundle
from latentdc.condense import Optim, condense
from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.discrepancies import Mean
from latentdc.initialise import initialise
from latentdc.networks import FreshPool
from latentdc.representations import Features
from latentdc.source import Minibatches


def main(
    out: str | Path = "runs/own-decoder",
    *,
    data: str = "fashion-mnist-mini",
    limit: int = 100,
    per_class: int = 3,
    steps: int = 30,
    width: int = 32,
) -> Path:
    """Condense through the decoder and save the bundle."""
    train = open_data(data, limit=limit).train
    decoder = CosineDecoder(list(train.spec.image_shape), keep=6)
    bank = initialise("real", decoder, [per_class] * train.spec.num_classes, seed=0, store=train)
    source = Minibatches(train, UniformSampler(train, 64), FreshPool("convnet", train.spec, 0, width), DSA(), seed=0)
    condense(decoder, bank, Match(Features(), Mean()), source, steps=steps, optim=Optim(lr=0.02), seed=0)

    folder = save_bundle(
        out, bank=bank, decoder=decoder, spec=train.spec, provenance={"recipe": "own decoder", "seed": 0}
    )
    pipe = DatasetSynthesisPipeline.from_pretrained(folder, component_classes=[CosineDecoder])
    print(f"{len(pipe().images)} images from {sum(bank.payload_bytes().values())} bytes in {folder}")
    return folder


if __name__ == "__main__":
    main()
