"""The plain U-Net: no encoder of its own name, two convolutions at each of five scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilemap.errors import ModelError

NORMS = ("before", "after", "none")
"""Where the normalisation stands: before the ReLU, after it, or nowhere."""
_LEVELS = 5


def _step(inside: int, outside: int, norm: str) -> nn.Sequential:
    """Convolution and ReLU, with a normalisation between or behind."""
    conv = nn.Conv2d(inside, outside, 3, padding=1, bias=norm != "before")
    if norm == "none":
        return nn.Sequential(conv, nn.ReLU(inplace=True))
    normal = nn.BatchNorm2d(outside)
    relu = nn.ReLU(inplace=True)
    parts = (normal, relu) if norm == "before" else (relu, normal)
    return nn.Sequential(conv, *parts)


def _double(inside: int, outside: int, norm: str) -> nn.Sequential:
    return nn.Sequential(_step(inside, outside, norm), _step(outside, outside, norm))


class PlainUNet(nn.Module):
    """U-Net as it was published (Ronneberger et al. 2015), with padding.

    It sees every pixel at full size, where a ResNet encoder begins with half of it; it has no
    shortcuts. Attributes, finest level first unless said otherwise: ``down`` and ``up`` (coarsest
    first) of two steps each, ``rise`` (coarsest first), ``head``.

    Args:
        bands: planes of the input.
        classes: planes of the output.
        channels: of the five levels, finest first, as a text: "64 128 256 512 1024" in the paper.
        norm: one of ``NORMS``; "none" is for weights that come from elsewhere.
        lean: a step up gives half as many channels as its level has, not as many.

    Raises:
        ModelError: if channels or norm have no such value.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        channels: str = "16 32 64 128 256",
        norm: str = "before",
        lean: bool = False,
    ) -> None:
        super().__init__()
        wide = _numbers(channels)
        if norm not in NORMS:
            raise ModelError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
        pairs = zip([bands, *wide[:-1]], wide, strict=True)
        self.down = nn.ModuleList(_double(inside, outside, norm) for inside, outside in pairs)
        self.pool = nn.MaxPool2d(2)
        back = list(zip(wide[:0:-1], wide[-2::-1], strict=True))
        risen = [max(1, fine // 2) if lean else fine for _, fine in back]
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(deep, number, 2, 2)
            for (deep, _), number in zip(back, risen, strict=True)
        )
        self.up = nn.ModuleList(
            _double(number + fine, fine, norm)
            for (_, fine), number in zip(back, risen, strict=True)
        )
        self.head = nn.Conv2d(wide[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, class, y, x) of (batch, band, y, x), y and x multiples of 16."""
        features = [self.down[0](x)]
        for double in list(self.down)[1:]:
            features.append(double(self.pool(features[-1])))
        x = features.pop()
        for rise, double in zip(self.rise, self.up, strict=True):
            x = double(torch.cat([rise(x), features.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _numbers(channels: str) -> list[int]:
    parts = channels.split()
    if len(parts) != _LEVELS or not all(p.isdecimal() and 1 <= int(p) <= 1024 for p in parts):
        raise ModelError(
            f"channels must be {_LEVELS} whole numbers from 1 to 1024, such as "
            f'"16 32 64 128 256", got {channels!r}'
        )
    return [int(part) for part in parts]
