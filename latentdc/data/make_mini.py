"""Make the embedded ``fashion-mnist-mini``: the first images of each class of Fashion-MNIST, in the original order.

``python -m latentdc.data.make_mini /usr/share/datasets/fashion-mnist latentdc/data/fashion-mnist-mini``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from latentdc.data.idx import read_split, write_idx

PER_CLASS = {"train": 1000, "t10k": 200}


def first_of_each_class(labels: Tensor, num: int) -> Tensor:
    """Rows of the first ``num`` images of every class, in ascending order ``(k * num,)``."""
    rows = [(labels == cls).nonzero().flatten()[:num] for cls in range(int(labels.max()) + 1)]
    return torch.cat(rows).sort().values


def main(argv: Sequence[str] | None = None) -> None:
    """Read idx files from one folder and write the small set to another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("target", type=Path, help="folder to write")
    args = parser.parse_args(argv)
    args.target.mkdir(parents=True, exist_ok=True)
    for prefix, num in PER_CLASS.items():
        images, labels = read_split(args.source, prefix)
        rows = first_of_each_class(labels, num)
        write_idx(args.target / f"{prefix}-images-idx3-ubyte.gz", images[rows, 0])
        write_idx(args.target / f"{prefix}-labels-idx1-ubyte.gz", labels[rows].to(torch.uint8))


if __name__ == "__main__":
    main()
