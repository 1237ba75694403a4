"""Networks in plain torch: U-Net and DeepLabV3+ on a ResNet encoder.

The encoder's parameters carry the names of the well-known ResNet weights (``conv1``, ``bn1``,
``layer1.0.conv1``, ``layer2.0.downsample.0`` ...), so that such weights load with
``network.encoder.load_state_dict``. Every layer commutes with shifts by a multiple of the stride
(nearest, or bilinear without aligned corners, and no pooling over the whole patch unless it is
asked for), so that what a pixel gets does not depend on the patch it lies in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemap.errors import ModelError

STRIDE = {"unet": 32, "deeplabv3plus": 16}
"""Sides of a patch are multiples of this, by network."""


def _convolution(
    inside: int, outside: int, kernel: int, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False)


def _block(inside: int, outside: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        _convolution(inside, outside, kernel, dilation=dilation),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def _separable(inside: int, outside: int, dilation: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution in two: per channel, then across channels."""
    return nn.Sequential(
        nn.Conv2d(inside, inside, 3, 1, dilation, dilation, groups=inside, bias=False),
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: ResNet-18 and -34."""

    expansion = 1

    def __init__(
        self, inside: int, planes: int, stride: int, dilation: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(inside, planes, 3, stride, dilation)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _convolution(planes, planes, 3, 1, dilation)
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
        self, inside: int, planes: int, stride: int, dilation: int, downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(inside, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _convolution(planes, planes, 3, stride, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _convolution(planes, planes * 4, 1)
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


ENCODERS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """ResNet without its classifier.

    Args:
        name: a key of ``ENCODERS``.
        bands: planes of the input.
        width: channels after the first convolution; 64 in the well-known weights.
        output_stride: 32, or 16 to dilate the last stage instead of halving it again.
    """

    def __init__(self, name: str, bands: int, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        block, depths = ENCODERS[name]
        self.conv1 = nn.Conv2d(bands, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        last = (2, 1) if output_stride == 32 else (1, 2)
        steps = ((1, 1), (2, 1), (2, 1), last)
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
    dilation: int,
) -> nn.Sequential:
    outside = planes * block.expansion
    downsample = None
    if stride != 1 or inside != outside:
        downsample = nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
        )
    blocks: list[nn.Module] = [block(inside, planes, stride, dilation, downsample)]
    blocks += [block(outside, planes, 1, dilation, None) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


class _Up(nn.Module):
    """Double the size, join the encoder's features of that size, convolve twice."""

    def __init__(self, inside: int, skip: int, outside: int) -> None:
        super().__init__()
        self.conv1 = _block(inside + skip, outside, 3)
        self.conv2 = _block(outside, outside, 3)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        out: Tensor = self.conv2(self.conv1(x))
        return out


class _UNetDecoder(nn.Module):
    def __init__(self, encoder: list[int], decoder: list[int]) -> None:
        super().__init__()
        skips = [*encoder[-2::-1], 0]
        insides = [encoder[-1], *decoder[:-1]]
        self.blocks = nn.ModuleList(
            _Up(inside, skip, outside)
            for inside, skip, outside in zip(insides, skips, decoder, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        x, *rest = features[::-1]
        skips: list[Tensor | None] = [*rest, None]
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return x


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with a ResNet as its contracting path.

    Args:
        encoder: a key of ``ENCODERS``.
        bands: planes of the input.
        classes: planes of the output.
        width: base width of the encoder; the decoder's five steps have 4, 2, 1, 1/2 and
            1/4 of it, but no fewer than 16 channels, or a narrow network loses whole classes there.
    """

    def __init__(self, encoder: str, bands: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = ResNet(encoder, bands, width)
        channels = [max(16, width * 4 // 2**step) for step in range(5)]
        self.decoder = _UNetDecoder(self.encoder.channels, channels)
        self.head = nn.Conv2d(channels[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 32."""
        logits: Tensor = self.head(self.decoder(self.encoder(x)))
        return logits


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2018), rates for an output stride of 16."""

    def __init__(self, inside: int, outside: int, image_pooling: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_block(inside, outside, 1)])
        self.branches.extend(_separable(inside, outside, rate) for rate in (6, 12, 18))
        self.pooled = _block(inside, outside, 1) if image_pooling else None
        self.project = _block(outside * (5 if image_pooling else 4), outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        if self.pooled is not None:
            mean = self.pooled(x.mean(dim=(2, 3), keepdim=True))
            parts.append(mean.expand(-1, -1, *x.shape[2:]))
        out: Tensor = self.project(torch.cat(parts, dim=1))
        return out


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ (Chen et al. 2018), output stride 16.

    Args:
        encoder: a key of ``ENCODERS``.
        bands: planes of the input.
        classes: planes of the output.
        width: base width of the encoder; the pyramid has 4 times as many channels.
        image_pooling: add the mean over the patch to the pyramid, as in the paper. What a pixel
            gets then depends on the patch it lies in, so seams cannot vanish; off by default.
    """

    def __init__(
        self,
        encoder: str,
        bands: int,
        classes: int,
        width: int = 64,
        image_pooling: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = ResNet(encoder, bands, width, output_stride=16)
        channels, fine = 4 * width, max(1, 3 * width // 4)
        self.pyramid = _Pyramid(self.encoder.channels[-1], channels, image_pooling)
        self.fine = _block(self.encoder.channels[1], fine, 1)
        self.fuse = nn.Sequential(
            _separable(channels + fine, channels), _separable(channels, channels)
        )
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 16."""
        features = self.encoder(x)
        deep = self.pyramid(features[-1])
        deep = functional.interpolate(deep, scale_factor=4.0, mode="bilinear")
        joined = self.fuse(torch.cat([deep, self.fine(features[1])], dim=1))
        logits = self.head(joined)
        return functional.interpolate(logits, scale_factor=4.0, mode="bilinear")


_OPTIONS: dict[str, dict[str, type]] = {
    "unet": {"encoder": str, "width": int},
    "deeplabv3plus": {"encoder": str, "width": int, "image_pooling": bool},
}


def build(architecture: Mapping[str, Any], bands: int, classes: int) -> nn.Module:
    """The network a card describes, freshly initialised and in training mode.

    Args:
        architecture: ``name`` ("unet" or "deeplabv3plus"), ``encoder`` (a key of ``ENCODERS``,
            default "resnet18"), ``width`` (default 64) and, for "deeplabv3plus",
            ``image_pooling`` (default False).
        bands: planes of the input, 1 or more.
        classes: planes of the output, 1 or more.

    Returns:
        A module from (batch, band, y, x) to logits (batch, class, y, x); y and x are multiples
        of ``STRIDE[name]``.

    Raises:
        ModelError: if a name, an option or a value is unknown.
    """
    given = dict(architecture)
    name = given.pop("name", None)
    if name not in _OPTIONS:
        raise ModelError(f"architecture name must be one of {', '.join(_OPTIONS)}, got {name!r}")
    options = _OPTIONS[name]
    for key, value in given.items():
        if key not in options:
            raise ModelError(f"{name} has the options {', '.join(options)}, got {key!r}")
        if type(value) is not options[key]:
            raise ModelError(f"{name} {key} must be a {options[key].__name__}, got {value!r}")
    given = {"encoder": "resnet18", "width": 64, **given}
    if given["encoder"] not in ENCODERS:
        raise ModelError(f"encoder must be one of {', '.join(ENCODERS)}, got {given['encoder']!r}")
    if not 4 <= given["width"] <= 1024:
        raise ModelError(f"width must lie between 4 and 1024, got {given['width']}")
    if bands < 1 or classes < 1:
        raise ModelError(f"bands and classes must be 1 or more, got {bands} and {classes}")
    network = UNet if name == "unet" else DeepLabV3Plus
    return network(bands=bands, classes=classes, **given)


def seeded(architecture: Mapping[str, Any], bands: int, classes: int, seed: int = 0) -> nn.Module:
    """The same random network for the same seed, ready to run.

    Its normalisation statistics are drawn too, so that nothing in it is a no-op; its logits are
    spread enough for every class to appear.

    Args:
        architecture: see ``build``.
        bands: see ``build``.
        classes: see ``build``.
        seed: any integer.

    Returns:
        The network in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build(architecture, bands, classes)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.uniform_(-0.1, 0.1, generator=generator)
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.1, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.eval()
