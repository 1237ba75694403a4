"""FCN: class scores at three scales, summed."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tilemap.models.networks.encoders import make_encoder


def _larger(x: Tensor, factor: float) -> Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear")


class FCN(nn.Module):
    """FCN-8s (Long et al. 2015) on a known encoder.

    Scores at strides 32, 16 and 8 are enlarged (bilinear, fixed) and summed. The scores stand on
    the encoder's last features: its stages are what the paper's wide convolutions "fc6" and "fc7"
    are to VGG.

    Args:
        encoder: a key of ``ENCODERS``.
        bands: planes of the input.
        classes: planes of the output.
        width: base width of the encoder.
    """

    def __init__(self, encoder: str, bands: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, bands, width)
        self.scores = nn.ModuleList(
            nn.Conv2d(channels, classes, 1) for channels in self.encoder.channels[2:]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 32."""
        features = self.encoder(x)[2:]
        fine, middle, coarse = (
            score(feature) for score, feature in zip(self.scores, features, strict=True)
        )
        return _larger(fine + _larger(middle + _larger(coarse, 2.0), 2.0), 8.0)
