"""Siamese U-Net: two dates through one encoder, what differs between them through the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tilemap.errors import ModelError
from tilemap.models.networks.encoders import make_encoder
from tilemap.models.networks.unet import UNetDecoder

BEFORE, AFTER = "before_", "after_"
"""How the names of the bands begin: those of the first date, then the same of the second."""
JOINS = ("difference", "both")
"""What of two dates' features the decoder gets."""


class SiameseUNet(nn.Module):
    """U-Net on two dates that share one encoder (Daudt et al. 2018, FC-Siam).

    The bands of the two dates are stacked: all of the first, then the same of the second. With
    "difference" the decoder gets ``|after - before|`` of the features at every scale: two equal
    dates give the same logits everywhere but at the edges, and it does not matter which came
    first, which suits "changed or not". With "both" it gets the features side by side and can tell
    from what to what; it has more weights.

    Args:
        encoder: a key of ``ENCODERS``.
        bands: planes of the input, of both dates together.
        classes: planes of the output.
        width: see ``UNet``.
        join: one of ``JOINS``.

    Raises:
        ModelError: if the number of bands is odd, or join is none of its values.
    """

    def __init__(
        self, encoder: str, bands: int, classes: int, width: int = 64, join: str = "difference"
    ) -> None:
        super().__init__()
        if bands % 2:
            raise ModelError(
                "siamese_unet takes the bands of one date and the same of another, an even "
                f"number, got {bands}"
            )
        if join not in JOINS:
            raise ModelError(f"siamese_unet join must be one of {', '.join(JOINS)}, got {join!r}")
        self.join = join
        self.encoder = make_encoder(encoder, bands // 2, width)
        times = 2 if join == "both" else 1
        channels = [max(16, width * 4 // 2**step) for step in range(5)]
        self.decoder = UNetDecoder([times * n for n in self.encoder.channels], channels)
        self.head = nn.Conv2d(channels[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 32."""
        # Both dates in one batch: in training they are normalised by the same statistics.
        features = self.encoder(torch.cat(x.chunk(2, dim=1)))
        logits: Tensor = self.head(self.decoder([self._joined(one) for one in features]))
        return logits

    def _joined(self, features: Tensor) -> Tensor:
        before, after = features.chunk(2)
        if self.join == "both":
            return torch.cat([before, after], dim=1)
        return (after - before).abs()


def stacked(bands: Sequence[str]) -> tuple[str, ...]:
    """Names of the bands of two dates, as a model of pairs has them.

    >>> stacked(["red", "nir"])
    ('before_red', 'before_nir', 'after_red', 'after_nir')
    """
    return tuple(f"{date}{band}" for date in (BEFORE, AFTER) for band in bands)


def of_one_date(bands: Sequence[str]) -> tuple[str, ...]:
    """Names of one date's bands, of those of both.

    >>> of_one_date(["before_red", "before_nir", "after_red", "after_nir"])
    ('red', 'nir')

    Raises:
        ModelError: if they are not ``stacked``.
    """
    half = len(bands) // 2
    names = tuple(band.removeprefix(BEFORE) for band in bands[:half])
    if not names or stacked(names) != tuple(bands):
        raise ModelError(
            f"bands of two dates must be named {BEFORE}NAME ..., then {AFTER}NAME ... in the same "
            f"order, got {', '.join(bands)}"
        )
    return names
