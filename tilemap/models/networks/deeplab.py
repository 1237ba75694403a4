"""DeepLabV3+: a pyramid of dilated convolutions, joined with fine features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemap.models.networks.blocks import block, separable
from tilemap.models.networks.encoders import make_encoder


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2018), rates for an output stride of 16."""

    def __init__(self, inside: int, outside: int, image_pooling: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList([block(inside, outside, 1)])
        self.branches.extend(separable(inside, outside, rate) for rate in (6, 12, 18))
        self.pooled = block(inside, outside, 1) if image_pooling else None
        self.project = block(outside * (5 if image_pooling else 4), outside, 1)

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
        self.encoder = make_encoder(encoder, bands, width, output_stride=16)
        channels, fine = 4 * width, max(1, 3 * width // 4)
        self.pyramid = _Pyramid(self.encoder.channels[-1], channels, image_pooling)
        self.fine = block(self.encoder.channels[1], fine, 1)
        self.fuse = nn.Sequential(
            separable(channels + fine, channels), separable(channels, channels)
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
