"""EfficientNet-Lite0 without its classifier, under the names of the well-known PyTorch weights.

Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks"; the
"Lite" variants have ReLU6 and no squeeze-and-excitation, and neither the first convolution nor
the first and last stage are scaled.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tilemap.models.networks.blocks import Encoder, dilated

_STEM = 32
_STAGES = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_TAPS = (0, 1, 2, 4, 6)
"""Stages whose features are the last of their size."""


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _depthwise(channels: int, kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = dilation * (kernel // 2) if stride == 1 else 0
    return nn.Conv2d(
        channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
    )


def _pad(x: Tensor, kernel: int) -> Tensor:
    """The zeros that TensorFlow's "same" gives a convolution of stride 2 on even sides.

    One more at the bottom and right than at the top and left; the same for every even size, so
    that the convolution commutes with shifts.
    """
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return functional.pad(x, (before, after, before, after))


class InvertedBlock(nn.Module):
    """Widen, convolve per channel, narrow; with a shortcut where the shape stays."""

    def __init__(
        self, inside: int, outside: int, kernel: int, step: tuple[int, int], expansion: int
    ) -> None:
        super().__init__()
        stride, dilation = step
        inner = inside * expansion
        self._pads = kernel if stride == 2 else 0
        self._shortcut = stride == 1 and inside == outside
        self._expands = expansion != 1
        if self._expands:
            self._expand_conv = nn.Conv2d(inside, inner, 1, bias=False)
            self._bn0 = _normalisation(inner)
        self._depthwise_conv = _depthwise(inner, kernel, stride, dilation)
        self._bn1 = _normalisation(inner)
        self._project_conv = nn.Conv2d(inner, outside, 1, bias=False)
        self._bn2 = _normalisation(outside)

    def forward(self, x: Tensor) -> Tensor:
        """Features, (batch, outside, y / stride, x / stride)."""
        shortcut = x
        if self._expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        if self._pads:
            x = _pad(x, self._pads)
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + shortcut if self._shortcut else x


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 up to its last stage.

    Args:
        bands: planes of the input.
        width: 64 for the published number of channels, which grow in proportion (but each has
            4 or more).
        output_stride: 32, or 16 or 8 to dilate the last stages instead of halving them again.
    """

    first = "_conv_stem.weight"
    classifier = ("_conv_head.", "_bn1.", "_fc.")

    def __init__(self, bands: int, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        inside = _scaled(_STEM, width)
        self._conv_stem = nn.Conv2d(bands, inside, 3, 2, bias=False)
        self._bn0 = _normalisation(inside)
        self.channels = []
        self._ends: list[int] = []
        blocks: list[nn.Module] = []
        steps = dilated((stage[1] for stage in _STAGES), output_stride, start=2)
        for number, ((kernel, _, expansion, planes, depth), (stride, dilation)) in enumerate(
            zip(_STAGES, steps, strict=True)
        ):
            outside = _scaled(planes, width)
            for index in range(depth):
                here = (stride, dilation[0]) if index == 0 else (1, dilation[1])
                blocks.append(InvertedBlock(inside, outside, kernel, here, expansion))
                inside = outside
            if number in _TAPS:
                self._ends.append(len(blocks))
                self.channels.append(outside)
        self._blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features after the stages that are the last of their size, finest first."""
        x = functional.relu6(self._bn0(self._conv_stem(_pad(x, 3))))
        features = []
        for number, block in enumerate(self._blocks, start=1):
            x = block(x)
            if number in self._ends:
                features.append(x)
        return features


def _scaled(channels: int, width: int) -> int:
    return max(4, channels * width // 64)
