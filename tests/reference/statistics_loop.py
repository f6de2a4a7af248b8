"""Per-class statistics of batch normalisation as their equation reads: a loop over the images of a class."""

from __future__ import annotations

from torch import Tensor


def statistics_loop(layer: Tensor, owner: Tensor, cls: int) -> tuple[list[float], list[float]]:
    """Mean and variance of each channel over all images of a class and all positions."""
    means, variances = [], []
    for channel in range(layer.shape[1]):
        values = []
        for image, mine in zip(layer, owner.tolist(), strict=True):
            if mine == cls:
                values += image[channel].flatten().tolist()
        mean = sum(values) / len(values)
        means.append(mean)
        variances.append(sum((value - mean) ** 2 for value in values) / len(values))
    return means, variances
