"""The Siamese U-Net: what two dates through one encoder promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tilemap.errors import ModelError
from tilemap.models.networks import build, load_encoder_weights, make_encoder, seeded
from tilemap.models.networks.pretrained import adapt_filters
from tilemap.models.networks.siamese import of_one_date, stacked


def pair(seed: int, rows: int = 64, cols: int = 96) -> tuple[Tensor, Tensor]:
    """Two dates of three bands."""
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.randn(2, 1, 3, rows, cols, generator=generator)
    return before, after


@pytest.mark.parametrize("join", ["difference", "both"])
def test_order_of_the_dates(join: str) -> None:
    """The difference has none; side by side the features have."""
    network = seeded({"name": "siamese_unet", "width": 4, "join": join}, 6, 3)
    before, after = pair(1)
    with torch.inference_mode():
        one, other = (network(torch.cat(x, dim=1)) for x in ((before, after), (after, before)))
    assert torch.equal(one, other) == (join == "difference")


def test_equal_dates_say_the_same_everywhere() -> None:
    """Whatever is in the picture; two dates of which one was altered somewhere do not."""
    network = seeded({"name": "siamese_unet", "width": 4}, 6, 3)
    before, _ = pair(2, 512, 416)
    altered = before.clone()
    altered[..., 240:272, 200:216] += 3
    with torch.inference_mode():
        same = network(torch.cat([before, before], dim=1))
        other = network(torch.cat([before, altered], dim=1))
    inside = same[..., 192:-192, 192:-192]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))
    assert (other - same)[..., 240:272, 200:216].abs().mean() > 1e-2


def test_what_changed_can_be_learned() -> None:
    """Squares that appear or vanish on a noisy ground, from 60 steps."""
    torch.manual_seed(0)
    network = build({"name": "siamese_unet", "width": 8}, 2, 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(60):
        x, label = squares(8)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), label).backward()
        optimiser.step()
    network.eval()
    x, label = squares(16)
    with torch.inference_mode():
        found = network(x).argmax(dim=1)
    both, either = (found & label).sum(), (found | label).sum()
    assert both / either > 0.7


def squares(batch: int) -> tuple[Tensor, Tensor]:
    """Pairs (batch, 2, 64, 96) of squares, and where only one of the two dates has one."""
    x = torch.randn(batch, 2, 64, 96) * 0.1
    label = torch.zeros(batch, 64, 96, dtype=torch.long)
    for image, changed in zip(x, label, strict=True):
        for kind in range(3):  # at the first date, at the second, at both
            top, left = int(torch.randint(0, 44, ())), int(torch.randint(0, 76, ()))
            place = (slice(top, top + 20), slice(left, left + 20))
            for date in (0, 1):
                if kind in (date, 2):
                    image[(date, *place)] = 1
        changed |= ((image[0] > 0.5) != (image[1] > 0.5)).long()
    return x, label


def test_well_known_weights_are_for_each_date(tmp_path: Path) -> None:
    """The encoder sees one date: its filters are those of one date's bands."""
    source = make_encoder("resnet18", 3, 4)
    bands = ["red", "nir", "green", "blue"]
    network: Any = build({"name": "siamese_unet", "width": 4}, 8, 2)
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    load_encoder_weights(network, path, stacked(bands))
    expected = adapt_filters(source.state_dict()["conv1.weight"], bands)
    assert torch.equal(network.encoder.conv1.weight, expected)
    with pytest.raises(ModelError, match="must be named before_NAME"):
        load_encoder_weights(network, path, bands * 2)


@pytest.mark.parametrize(
    ("architecture", "bands", "message"),
    [
        ({"name": "siamese_unet"}, 3, "an even number, got 3"),
        ({"name": "siamese_unet", "join": "sum"}, 4, "join must be one of difference, both, got"),
        ({"name": "siamese_unet", "join": 2}, 4, "siamese_unet join must be a str, got 2"),
        ({"name": "siamese_unet", "width": 2}, 4, "width must lie between 4 and 1024, got 2"),
    ],
)
def test_what_cannot_be_built(architecture: dict[str, Any], bands: int, message: str) -> None:
    """One line that says what must hold and what came."""
    with pytest.raises(ModelError, match=message):
        build(architecture, bands, 2)


@pytest.mark.parametrize(
    "bands",
    [
        [],
        ["before_red"],
        ["red", "red"],
        ["after_red", "before_red"],
        ["before_red", "before_nir", "after_nir", "after_red"],
    ],
)
def test_names_of_bands_tell_the_dates(bands: list[str]) -> None:
    """Anything but the first date's names and then the second's, in one order, is refused."""
    with pytest.raises(ModelError, match="bands of two dates must be named"):
        of_one_date(bands)
