"""Which encoders there are, behind one function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tilemap.models.networks.blocks import Encoder
from tilemap.models.networks.efficientnet import EfficientNetLite0
from tilemap.models.networks.resnet import DEPTHS, ResNet

ENCODERS: dict[str, Callable[[int, int, int], Encoder]] = {
    **{name: partial(ResNet, name) for name in DEPTHS},
    "efficientnet-lite0": EfficientNetLite0,
}
"""From (bands, width, output_stride) to an encoder, by name."""


def make_encoder(name: str, bands: int, width: int = 64, output_stride: int = 32) -> Encoder:
    """A freshly initialised encoder.

    Args:
        name: a key of ``ENCODERS``.
        bands: planes of the input.
        width: 64 for the published number of channels; they grow in proportion.
        output_stride: 32, or 16 or 8 to dilate the last stages instead of halving them again.
    """
    return ENCODERS[name](bands, width, output_stride)
