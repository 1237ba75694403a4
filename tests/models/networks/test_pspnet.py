"""The pyramid's means against adaptive average pooling."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tilemap.models.networks import PSPNet, seeded
from tilemap.models.networks.pspnet import averaging


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 7))
def test_means_are_those_of_adaptive_pooling(rows: int, cols: int, bins: int) -> None:
    """For every size, also smaller than the number of parts."""
    x = torch.randn(1, 2, rows, cols, dtype=torch.float64)
    result = averaging(rows, bins, x) @ (x @ averaging(cols, bins, x).T)
    torch.testing.assert_close(result, torch.nn.functional.adaptive_avg_pool2d(x, bins))


def test_it_has_the_published_size() -> None:
    """Channels of the paper on ResNet-50: four parts of 512 beside 2048, fused to 512."""
    network = PSPNet("resnet50", 3, 150)
    assert network.fuse[0].weight.shape == (512, 4096, 3, 3)
    assert network.head.weight.shape == (150, 512, 1, 1)


def test_the_whole_patch_counts() -> None:
    """What is at one end changes what the other end gets."""
    network = seeded({"name": "pspnet", "width": 8}, 1, 2)
    one = torch.zeros(1, 1, 8, 2048)
    other = one.clone()
    other[..., :512] = 50
    with torch.inference_mode():
        assert (network(one) - network(other))[..., -16:].abs().max() > 1e-5
