"""The ConvNet of the dataset-condensation literature."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from latentdc.errors import InputError
from latentdc.networks.base import Network
from latentdc.types import DataSpec, Observation

_DEPTH_OF_SIDE = {32: 3, 64: 4, 128: 5, 256: 6}


def depth_for(side: int) -> int:
    """Blocks for images of ``side`` pixels, ending near 4 × 4: 3, 4, 5, 6 for at most 32, 64, 128, 256 pixels.

    Raises:
        InputError: the images are larger than 256 pixels.
    """
    for largest, depth in _DEPTH_OF_SIDE.items():
        if side <= largest:
            return depth
    raise InputError(f"convnet: images of {side} pixels are too large (at most 256); load the data with a smaller size")


class _Unshifted(nn.Conv2d):
    """A convolution that leaves its bias out, for the instance normalisation after it would take it away again.

    The network is the same function with the same gradients, that of the bias being zero, which takes a pass over the
    largest activations to find.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(n, c, h, w)`` to ``(n, out_channels, h', w')``."""
        convolved: Tensor = self._conv_forward(x, self.weight, None)
        return convolved


class ConvNet(Network):
    """D blocks of [3×3 convolution, instance normalisation, ReLU, 2×2 average pooling], then one linear layer.

    Width 128 and D = 3 for 28 or 32 pixels: 320,010 parameters on CIFAR-10, 317,706 on 28-pixel grey images.
    The first convolution pads 28-pixel images by 3 instead of 1, so that they too end at 4 × 4.
    Features: output of every block but the last as ``(n, c, h, w)``, then the flattened embedding ``(n, d)``.
    Maps: what each block pools, of twice its height and width.

    Args:
        spec: the data.
        width: channels of every block, 128 if None.
        depth: number of blocks, by resolution if None.

    Raises:
        InputError: images too large, or too small for the depth.

    *Reference:* Zhao, Mopuri & Bilen 2021, arXiv 2006.05929, §4.1 (after Gidaris & Komodakis 2018).
    *Differs from the authors' code:* initialised from the given seed, not from the wall clock; the biases of the
    convolutions, which change nothing (see ``_Unshifted``), are kept as parameters and not computed with.
    """

    cite: ClassVar[tuple[str, ...]] = ("zhao2021dc",)

    def __init__(self, spec: DataSpec, *, width: int | None = None, depth: int | None = None) -> None:
        super().__init__(spec, width=width)
        channels, height, wide = spec.image_shape
        width = width or 128
        depth = depth or depth_for(max(height, wide))
        blocks: list[nn.Module] = []
        for number in range(depth):
            padding = 3 if number == 0 and (height, wide) == (28, 28) else 1
            height, wide = (height + 2 * (padding - 1)) // 2, (wide + 2 * (padding - 1)) // 2
            blocks.append(
                nn.Sequential(
                    _Unshifted(channels if number == 0 else width, width, kernel_size=3, padding=padding),
                    nn.GroupNorm(width, width),  # one group per channel: instance normalisation with scale and shift
                    nn.ReLU(),
                    nn.AvgPool2d(2),
                )
            )
        if min(height, wide) < 1:
            raise InputError(
                f"convnet: images of {spec.image_shape[1:]} pixels vanish after {depth} poolings; use a smaller depth"
            )
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(width * height * wide, spec.num_classes)

    def observe(self, x: Tensor) -> Observation:
        """Block outputs, the embedding ``(n, d)``, the logits ``(n, k)`` and the maps."""
        x = self.standardise(x)
        features: list[Tensor] = []
        maps: list[Tensor] = []
        for block in self.blocks:
            convolution, normalisation, activation, pooling = block.children()
            maps.append(activation(normalisation(convolution(x))))
            features.append(x := pooling(maps[-1]))
        features[-1] = x.flatten(1)
        return Observation(self.classifier(features[-1]), tuple(features), tuple(maps))
