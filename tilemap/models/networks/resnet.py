"""ResNet (He et al. 2016) without its classifier, under the names of the well-known weights."""

from __future__ import annotations

from torch import Tensor, nn

from tilemap.models.networks.blocks import Encoder, convolution, dilated


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: ResNet-18 and -34."""

    expansion = 1

    def __init__(
        self,
        inside: int,
        planes: int,
        stride: int,
        dilation: tuple[int, int],
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inside, planes, 3, stride, dilation[0])
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = convolution(planes, planes, 3, 1, dilation[1])
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Features, (batch, planes, y / stride, x / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        out: Tensor = self.relu(x + shortcut)
        return out


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut: ResNet-50."""

    expansion = 4

    def __init__(
        self,
        inside: int,
        planes: int,
        stride: int,
        dilation: tuple[int, int],
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inside, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = convolution(planes, planes, 3, stride, dilation[0])
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = convolution(planes, planes * 4, 1)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Features, (batch, 4 * planes, y / stride, x / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        out: Tensor = self.relu(x + shortcut)
        return out


DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Kind of block and blocks per stage, by name."""


class ResNet(Encoder):
    """ResNet without its classifier.

    Args:
        name: a key of ``DEPTHS``.
        bands: planes of the input.
        width: channels after the first convolution; 64 in the well-known weights.
        output_stride: 32, or 16 or 8 to dilate the last stages instead of halving them again.
    """

    first = "conv1.weight"
    classifier = ("fc.",)

    def __init__(self, name: str, bands: int, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        block, depths = DEPTHS[name]
        self.conv1 = nn.Conv2d(bands, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        steps = dilated((1, 2, 2, 2), output_stride, start=4)
        self.channels = [width]
        inside = width
        for number, (depth, (stride, dilation)) in enumerate(zip(depths, steps, strict=True)):
            planes = width * 2**number
            layer = _stage(block, inside, planes, depth, stride, dilation)
            self.add_module(f"layer{number + 1}", layer)
            inside = planes * block.expansion
            self.channels.append(inside)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features after the stem and after each of the four stages, finest first."""
        features = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            features.append(x)
        return features


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inside: int,
    planes: int,
    depth: int,
    stride: int,
    dilation: tuple[int, int],
) -> nn.Sequential:
    outside = planes * block.expansion
    downsample = None
    if stride != 1 or inside != outside:
        downsample = nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
        )
    blocks: list[nn.Module] = [block(inside, planes, stride, dilation, downsample)]
    blocks += [
        block(outside, planes, 1, (dilation[1], dilation[1]), None) for _ in range(depth - 1)
    ]
    return nn.Sequential(*blocks)
