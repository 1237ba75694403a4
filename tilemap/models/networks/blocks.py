"""What the networks are made of: convolutions with their normalisation, and the encoder's promise.

A convolution is always followed directly by its normalisation among the children of one module,
so that ``fold_normalisation`` may fold the one into the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn


class Encoder(nn.Module):
    """The contracting path of a network: features at five scales.

    Attributes:
        channels: planes of the features, finest first.
        first: name of the first convolution's weights, (out, band, y, x).
        classifier: how the names begin of tensors that well-known weights have beyond these.
    """

    channels: list[int]
    first: ClassVar[str]
    classifier: ClassVar[tuple[str, ...]]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32 (or at most the output stride)."""
        raise NotImplementedError


def convolution(
    inside: int, outside: int, kernel: int, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """A convolution that keeps the size (less the stride), without bias."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False)


def block(inside: int, outside: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        convolution(inside, outside, kernel, dilation=dilation),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def separable(inside: int, outside: int, dilation: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution in two: per channel, then across channels."""
    return nn.Sequential(
        nn.Conv2d(inside, inside, 3, 1, dilation, dilation, groups=inside, bias=False),
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def dilated(
    strides: Iterable[int], output_stride: int, start: int = 1
) -> list[tuple[int, tuple[int, int]]]:
    """Strides of which none goes beyond an output stride: it becomes dilation instead.

    The convolution that loses its stride keeps its dilation, those after it are dilated more: each
    then sees what it saw, at more places (Chen et al. 2018, "atrous"), so that weights which
    were trained with the stride remain right.

    Args:
        strides: of the stages, 1 or 2 each.
        output_stride: the most they may come to.
        start: stride before the first stage.

    Returns:
        Of each stage the stride, and the dilation of its first convolution and of its others.
    """
    total, dilation = start, 1
    steps = []
    for stride in strides:
        before = dilation
        if total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        steps.append((stride, (before, dilation)))
    return steps
