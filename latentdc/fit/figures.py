"""How good a fitted decoder is, measured on held-out real images: never on the test set.

Fidelity and diversity in the embedding of a small classifier, and accuracy both ways between real and made images:
draws from the prior of a generator, or what an autoencoder makes of real images.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from latentdc.data.store import ClassStore
from latentdc.networks.base import Network, build
from latentdc.networks.infer import accuracy, embed
from latentdc.networks.train import TrainSpec, train_student
from latentdc.passing import reconstructions, samples
from latentdc.types import DataSpec

log = logging.getLogger(__name__)

_CHUNK = 500


@dataclass(frozen=True)
class Figures:
    """Figures of a decoder; accuracies in per cent."""

    real_classifier_on_held_out: float
    """A classifier trained on the training slice, on held-out real images: the ceiling."""
    real_classifier_on_samples: float
    """The same classifier on made images, against the class they were asked for (or made of)."""
    sample_classifier_on_held_out: float
    """A classifier trained on as many made images as there are training images, on held-out real images."""
    classifier: str
    """Architecture, width and passes of both classifiers."""
    density: float | None = None
    coverage: float | None = None
    neighbours: int | None = None
    """Of density and coverage; fewer than the usual 5 where hardly any images are held out."""
    rmse: float | None = None
    """Of an autoencoder: root mean square error of decoded held-out images, pixels in [0, 1]."""

    def as_dict(self) -> dict[str, Any]:
        """The figures that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class FiguresSpec:
    """Size of the classifiers and of the neighbourhoods."""

    neighbours: int = 5
    """At most; all others where fewer images are held out."""
    width: int = 32
    epochs: int = 5
    lr: float = 0.02


def density_coverage(real: Tensor, fake: Tensor, neighbours: int = 5) -> tuple[float, float]:
    """Density and coverage of generated points ``(m, d)`` against real points ``(n, d)``.

    With r_i the distance from real point i to its k-th nearest other real point:

    density = 1/(k m) sum_j sum_i 1[|f_j - x_i| < r_i];  coverage = 1/n sum_i 1[min_j |f_j - x_i| < r_i]

    Coverage lies in [0, 1]; density is 1 for a perfect generator and may exceed it.

    *Reference:* Naeem et al. 2020, arXiv 2002.09797, eq. 3 and 4.
    """
    inside, covered = 0, 0
    for chunk in torch.split(real, _CHUNK):
        radius = torch.cdist(chunk, real).kthvalue(neighbours + 1, dim=1).values  # the nearest one is the point itself
        within = torch.cdist(chunk, fake) < radius[:, None]
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return inside / (neighbours * len(fake)), covered / len(real)


def measure(
    decoder: Any,
    train: ClassStore,
    held: ClassStore,
    *,
    reconstructs: bool = False,
    seed: int,
    precision: str = "fp32",
    spec: FiguresSpec | None = None,
) -> Figures:
    """All figures of a decoder; trains two small classifiers.

    Args:
        decoder: the decoder in eval mode.
        train: the images it was trained on.
        held: real images it never saw.
        reconstructs: judge decoded real images, not draws from the prior.
        seed: seed of classifiers and samples.
        precision: ``"fp32"`` or ``"bf16"`` for the classifiers.
        spec: sizes.
    """
    spec = spec or FiguresSpec()
    fitted = TrainSpec(spec.epochs, lr=spec.lr, batch_size=128)

    def classifier(images: Tensor, labels: Tensor, data: DataSpec) -> Network:
        network = build("convnet", data, seed=seed, width=spec.width, purpose="figures")
        return train_student(network, images, labels, fitted, seed=seed, precision=precision)

    real = classifier(train.images, train.labels, train.spec)
    if reconstructs:
        near = reconstructions(decoder, held.images, held.labels)
        copies = reconstructions(decoder, train.images, train.labels)
    else:
        near = samples(decoder, held.labels, seed=seed)
        copies = samples(decoder, train.labels, seed=seed + 1)
    taught = classifier(copies, train.labels, train.spec)
    accuracies = (
        round(accuracy(real, held.images, held.labels), 2),
        round(accuracy(real, near, held.labels), 2),
        round(accuracy(taught, held.images, held.labels), 2),
        f"convnet width {spec.width}, {spec.epochs + 1} passes",
    )
    if reconstructs:
        error = (near.float() - held.images.float()).square().mean().sqrt() / 255
        return Figures(*accuracies, rmse=round(float(error), 4))
    neighbours = min(spec.neighbours, len(held) - 1)  # At least 1: every class holds one out, and there are two.
    if neighbours < spec.neighbours:
        log.warning(
            "only %d images are held out: density and coverage are over %d neighbours instead of %d, and rough",
            len(held),
            neighbours,
            spec.neighbours,
        )
    density, coverage = density_coverage(embed(real, held.images), embed(real, near), neighbours)
    return Figures(*accuracies, round(density, 4), round(coverage, 4), neighbours)
