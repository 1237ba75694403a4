"""PSPNet: means over halves, thirds and sixths of the patch, beside the features themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilemap.models.networks.blocks import block
from tilemap.models.networks.encoders import make_encoder

BINS = (1, 2, 3, 6)
"""Into how many parts the pyramid cuts each side of the patch."""


def averaging(size: int, bins: int, like: Tensor) -> Tensor:
    """The matrix that takes the mean of each of some nearly equal parts.

    The parts are those of adaptive average pooling: part i reaches from floor(i * size / bins) to
    ceil((i + 1) * size / bins), so that they overlap by one where the size is no multiple. It is
    made from the size by tensor operations: an exported network then takes patches of any size.

    Args:
        size: what is cut, 1 or more.
        bins: number of parts, 1 or more.
        like: gives dtype and device.

    Returns:
        Weights (bins, size), rows sum to 1.
    """
    part = torch.arange(bins, device=like.device)[:, None]
    place = torch.arange(size, device=like.device)[None]
    first = part * size // bins
    last = ((part + 1) * size + bins - 1) // bins
    inside = ((place >= first) & (place < last)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


class _Pooling(nn.Module):
    """Means over the parts of the patch, convolved, at the features' size again."""

    def __init__(self, inside: int, outside: int, bins: int) -> None:
        super().__init__()
        self._bins = bins
        self.project = block(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[2:]
        across = averaging(cols, self._bins, x).transpose(0, 1)  # (x, bins)
        means = averaging(rows, self._bins, x) @ (x @ across)  # (batch, channel, bins, bins)
        return functional.interpolate(self.project(means), size=(rows, cols), mode="bilinear")


class PSPNet(nn.Module):
    """PSPNet (Zhao et al. 2017), output stride 8, without the auxiliary loss.

    The pyramid's means are over the whole patch, so **context has no bound**: what a pixel gets
    depends on the patch it lies in, and seams cannot vanish. Training needs batches of 2 or more:
    the mean over a whole patch is normalised over the batch.

    Args:
        encoder: a key of ``ENCODERS``.
        bands: planes of the input.
        classes: planes of the output.
        width: base width of the encoder; each part of the pyramid and the fusion have a quarter
            of the channels of its last features.
    """

    def __init__(self, encoder: str, bands: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, bands, width, output_stride=8)
        deep = self.encoder.channels[-1]
        channels = deep // len(BINS)
        self.pyramid = nn.ModuleList(_Pooling(deep, channels, bins) for bins in BINS)
        self.fuse = block(deep + len(BINS) * channels, channels, 3)
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 8."""
        deep = self.encoder(x)[-1]
        joined = torch.cat([deep, *(pooling(deep) for pooling in self.pyramid)], dim=1)
        return functional.interpolate(
            self.head(self.fuse(joined)), scale_factor=8.0, mode="bilinear"
        )
