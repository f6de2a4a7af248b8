"""ResNet-18 as a student, from torchvision's blocks."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from latentdc.networks.base import Network
from latentdc.types import DataSpec, Observation


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    return nn.Sequential(BasicBlock(before, after, stride, shortcut), BasicBlock(after, after))


class ResNet18(Network):
    """ResNet-18 with batch normalisation; for images up to 64 pixels the stem is one 3×3 convolution of stride 1.

    The small-image stem has no maximum pooling either, as is usual on CIFAR; larger images get ImageNet's stem.
    Layers, names and initialisation are torchvision's (a test compares the outputs), with a width argument.
    Features: output of each of the four stages as ``(n, c, h, w)``, its maps, then the pooled embedding
    ``(n, 8 · width)``.
    In eval mode a fresh network normalises with mean 0 and variance 1: train it before reading its features.

    Args:
        spec: the data.
        width: channels of the first stage, 64 if None; they double at every stage.

    *Reference:* He et al. 2016, arXiv 1512.03385.
    """

    cite: ClassVar[tuple[str, ...]] = ("he2016resnet",)

    def __init__(self, spec: DataSpec, *, width: int | None = None) -> None:
        super().__init__(spec, width=width)
        channels, height, wide = spec.image_shape
        width = width or 64
        small = max(height, wide) <= 64
        self.conv1 = (
            nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=1, bias=False)
            if small
            else nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, spec.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def observe(self, x: Tensor) -> Observation:
        """Stage outputs, the pooled embedding ``(n, d)`` and the logits ``(n, k)``."""
        x = self.maxpool(self.bn1(self.conv1(self.standardise(x))).relu())
        features: list[Tensor] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        maps = tuple(features)
        features.append(x.mean(dim=(2, 3)))
        return Observation(self.fc(features[-1]), tuple(features), maps)
