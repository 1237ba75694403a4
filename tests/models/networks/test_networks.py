"""The networks: shapes, well-known names and counts, and indifference to where a patch lies."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilemap.errors import ModelError
from tilemap.models.networks import PLAIN, STRIDE, ResNet, bounded_context, build, seeded, stride_of

SMALL = {"width": 4}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    ("encoder", "bands"),
    [
        ("resnet18", 1),
        ("resnet18", 4),
        ("resnet18", 13),
        ("resnet34", 3),
        ("resnet50", 3),
        ("efficientnet-lite0", 5),
    ],
)
def test_logits_have_the_size_of_the_patch(name: str, encoder: str, bands: int) -> None:
    """Every network gives every class at full resolution, on oblong patches too."""
    network = seeded({"name": name, "encoder": encoder, **SMALL}, bands, 7)
    for rows, cols in ((64, 96), (STRIDE[name], STRIDE[name])):
        with torch.inference_mode():
            logits = network(torch.randn(1, bands, rows, cols))
        assert logits.shape == (1, 7, rows, cols)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("encoder", "parameters", "tensors"),
    [
        ("resnet18", 11_689_512 - 513_000, 122 - 2),
        ("resnet34", 21_797_672 - 513_000, 218 - 2),
        ("resnet50", 25_557_032 - 2_049_000, 320 - 2),
    ],
)
def test_encoder_is_the_well_known_one(encoder: str, parameters: int, tensors: int) -> None:
    """The published number of parameters and tensors, less the classifier's."""
    network = ResNet(encoder, bands=3)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


def test_encoder_has_the_well_known_names() -> None:
    """Names and shapes that ResNet-18 and -50 weights have everywhere."""
    weights = ResNet("resnet18", bands=3).state_dict()
    assert weights["conv1.weight"].shape == (64, 3, 7, 7)
    assert weights["bn1.running_var"].shape == (64,)
    assert weights["layer1.0.conv1.weight"].shape == (64, 64, 3, 3)
    assert weights["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert weights["layer2.0.downsample.1.bias"].shape == (128,)
    assert weights["layer4.1.bn2.weight"].shape == (512,)
    assert "layer1.0.downsample.0.weight" not in weights
    deep = ResNet("resnet50", bands=3).state_dict()
    assert deep["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert deep["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    pattern = r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.\w+"
    assert all(re.fullmatch(pattern, name) for name in deep)


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet-lite0"])
@pytest.mark.parametrize("name", [n for n in PLAIN if bounded_context({"name": n})])
def test_what_a_pixel_gets_does_not_depend_on_where_its_patch_begins(
    name: str, encoder: str
) -> None:
    """Far from the edges, patches that begin a stride apart agree; half a stride apart not."""
    stride = STRIDE[name]
    network = seeded({"name": name, "encoder": encoder, "width": 16}, 2, 3)
    # Looks several hundred pixels far along x; the narrow y is the same in every patch.
    scene = torch.randn(1, 2, stride, 2048, generator=torch.Generator().manual_seed(1))

    def middle(left: int) -> torch.Tensor:
        with torch.inference_mode():
            logits = network(scene[..., left : left + 1920])
        return logits[..., 960 - left : 992 - left]

    torch.testing.assert_close(middle(0), middle(stride), rtol=1e-4, atol=1e-5)
    assert (middle(0) - middle(stride // 2)).abs().max() > 1e-4


def test_image_pooling_reaches_across_the_whole_patch() -> None:
    """With it, a pixel at one end changes all others; without it, not the far ones."""
    for pooling in (True, False):
        arch = {"name": "deeplabv3plus", "image_pooling": pooling, **SMALL}
        network = seeded(arch, 1, 3)
        one = torch.zeros(1, 1, 16, 2048)
        other = one.clone()
        other[..., :16] = 50
        with torch.inference_mode():
            change = (network(one) - network(other))[..., -16:].abs().max()
        assert (change > 1e-4) == pooling


@settings(max_examples=5)
@given(st.integers(0, 2**31))
def test_seeded_networks_repeat(seed: int) -> None:
    """The same seed gives the same tensors, another seed others."""
    arch = {"name": "unet", **SMALL}
    one, two, other = (seeded(arch, 3, 4, s).state_dict() for s in (seed, seed, seed + 1))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["encoder.conv1.weight"], other["encoder.conv1.weight"])


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({}, "architecture name must be one of unet, deeplabv3plus, fcn, pspnet, plain_unet, "),
        ({}, "mask2former, smp:NAME, got None"),
        ({"name": "vit"}, "got 'vit'"),
        ({"name": ["unet"]}, "got ['unet']"),
        ({"name": "pspnet", "encoder": "vgg"}, "resnet50, efficientnet-lite0, got 'vgg'"),
        ({"name": "segformer", "size": "b6"}, "segformer size must be one of b0, b1, b2, b3, b4"),
        ({"name": "segformer", "width": 0}, "segformer width must lie between 1 and 256, got 0"),
        ({"name": "mask2former", "size": "b0"}, "must be one of tiny, small, base, large, got"),
        ({"name": "mask2former", "width": 90}, "must be a multiple of 32, or below 64, got 90"),
        ({"name": "mask2former", "hidden": 48}, "hidden must be a multiple of 32, got 48"),
        ({"name": "smp:Unet", "encoder_weights": "imagenet"}, "has the options encoder, got"),
        ({"name": "unet", "encoder": "resnet19"}, "encoder must be one of resnet18, resnet34"),
        ({"name": "unet", "depth": 4}, "unet has the options encoder, width, got 'depth'"),
        ({"name": "unet", "image_pooling": True}, "got 'image_pooling'"),
        ({"name": "unet", "width": "64"}, "width must be a int, got '64'"),
        ({"name": "unet", "width": True}, "width must be a int, got True"),
        ({"name": "unet", "width": 0}, "width must lie between 4 and 1024, got 0"),
    ],
)
def test_unknown_architectures_are_refused(architecture: dict[str, object], message: str) -> None:
    """In one line that says what must hold and what came."""
    with pytest.raises(ModelError) as caught:
        build(architecture, 3, 2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bands", "classes"), [(0, 2), (3, 0)])
def test_no_planes_are_refused(bands: int, classes: int) -> None:
    """A network takes and gives at least one plane."""
    with pytest.raises(ModelError, match="must be 1 or more"):
        build({"name": "unet"}, bands, classes)


@pytest.mark.parametrize(
    ("architecture", "bounded", "stride"),
    [
        ({"name": "unet", "encoder": "resnet50"}, True, 32),
        ({"name": "fcn"}, True, 32),
        ({"name": "deeplabv3plus"}, True, 16),
        ({"name": "deeplabv3plus", "image_pooling": True}, False, 16),
        ({"name": "pspnet"}, False, 8),
        ({"name": "siamese_unet", "join": "both"}, True, 32),
        ({"name": "segformer", "size": "b3"}, False, 32),
        ({"name": "mask2former"}, False, 32),
        ({"name": "smp:Unet", "encoder": "resnet18"}, False, 32),
    ],
)
def test_context_and_stride(architecture: dict[str, object], bounded: bool, stride: int) -> None:
    """What is known without building the network, or having its package."""
    assert bounded_context(architecture) is bounded
    assert stride_of(architecture) == stride


def test_context_of_nothing_is_refused() -> None:
    """A name that is none has no context, and asks nothing of a patch."""
    with pytest.raises(ModelError, match="architecture name must be one of"):
        bounded_context({"name": "vit"})
    assert stride_of({}) == 1
