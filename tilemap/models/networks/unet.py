"""U-Net: the encoder's features joined again on the way up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemap.models.networks.blocks import block
from tilemap.models.networks.encoders import make_encoder


class _Up(nn.Module):
    """Double the size, join the encoder's features of that size, convolve twice."""

    def __init__(self, inside: int, skip: int, outside: int) -> None:
        super().__init__()
        self.conv1 = block(inside + skip, outside, 3)
        self.conv2 = block(outside, outside, 3)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        out: Tensor = self.conv2(self.conv1(x))
        return out


class UNetDecoder(nn.Module):
    """The expanding path.

    Args:
        encoder: planes of the features at strides 2 to 32, finest first.
        decoder: planes that each of the five steps up puts out, coarsest first.
    """

    def __init__(self, encoder: list[int], decoder: list[int]) -> None:
        super().__init__()
        skips = [*encoder[-2::-1], 0]
        insides = [encoder[-1], *decoder[:-1]]
        self.blocks = nn.ModuleList(
            _Up(inside, skip, outside)
            for inside, skip, outside in zip(insides, skips, decoder, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Planes (batch, decoder[-1], y, x) at full size, of features finest first."""
        x, *rest = features[::-1]
        skips: list[Tensor | None] = [*rest, None]
        for up, skip in zip(self.blocks, skips, strict=True):
            x = up(x, skip)
        return x


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with a known encoder as its contracting path.

    Args:
        encoder: a key of ``ENCODERS``.
        bands: planes of the input.
        classes: planes of the output.
        width: base width of the encoder; the decoder's five steps have 4, 2, 1, 1/2 and
            1/4 of it, but no fewer than 16 channels, or a narrow network loses whole classes there.
    """

    def __init__(self, encoder: str, bands: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, bands, width)
        channels = [max(16, width * 4 // 2**step) for step in range(5)]
        self.decoder = UNetDecoder(self.encoder.channels, channels)
        self.head = nn.Conv2d(channels[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 32."""
        logits: Tensor = self.head(self.decoder(self.encoder(x)))
        return logits
