"""Attention maps as their equation reads: a loop over images, depths and positions."""

from __future__ import annotations

import math

from torch import Tensor


def attention_loop(features: tuple[Tensor, ...], power: float) -> list[list[list[float]]]:
    """For each depth of maps and each image the normalised sums over channels, position by position."""
    depths = []
    for layer in features:
        if layer.ndim != 4:
            continue
        images = []
        for image in layer.tolist():
            height, width = len(image[0]), len(image[0][0])
            flat = [
                sum(abs(channel[row][column]) ** power for channel in image)
                for row in range(height)
                for column in range(width)
            ]
            length = math.sqrt(sum(value**2 for value in flat))
            images.append([value / length for value in flat])
        depths.append(images)
    return depths
