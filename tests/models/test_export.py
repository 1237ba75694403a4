"""An exported file gives what the network gives, for patches and batches of any size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tilemap
from tilemap.errors import ModelError, UnavailableError
from tilemap.models import export
from tilemap.models.export import export_onnx
from tilemap.models.networks import PLAIN, STRIDE, seeded
from tilemap.models.onnx_file import check_self_contained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run(path: Path, batch: np.ndarray) -> np.ndarray:
    """Logits by ONNX Runtime, by the names of the file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(["logits"], {"patch": batch})[0]
    return result


def small() -> nn.Sequential:
    """Nothing but a convolution, its normalisation, and two ways to change the size."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
    )
    network[1].running_mean.uniform_(-1, 1)
    return network.eval()


def agree(network: nn.Module, path: Path, stride: int) -> None:
    """For one patch and several, small, large and oblong, none of the size it was traced with."""
    generator = np.random.default_rng(4)
    for count, rows, cols in ((1, 1, 2), (3, 5, 2), (1, 3, 7)):
        batch = generator.normal(size=(count, 3, rows * stride, cols * stride)).astype("f4")
        with torch.no_grad():
            expected = network(torch.from_numpy(batch)).numpy()
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(run(path, batch), expected, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("name", PLAIN)
def test_networks_of_ours(name: str, tmp_path: Path) -> None:
    """One self-contained file, without normalisation, of known names and free sizes."""
    network = seeded({"name": name, "encoder": "resnet18", "width": 4}, 3, 4)
    path = tmp_path / "model.onnx"
    assert export_onnx(network, 3, STRIDE[name], path) == "tracing"
    agree(network, path, STRIDE[name])
    check_self_contained(path)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    ends = [
        [d.dim_value or d.dim_param for d in end.type.tensor_type.shape.dim]
        for end in (*model.graph.input, *model.graph.output)
    ]
    assert ends == [["batch", 3, "height", "width"], ["batch", 4, "height", "width"]]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_other_encoders(tmp_path: Path) -> None:
    """Padding that depends on nothing, and bottlenecks."""
    for encoder in ("efficientnet-lite0", "resnet50"):
        network = seeded({"name": "unet", "encoder": encoder, "width": 8}, 3, 4)
        export_onnx(network, 3, 32, tmp_path / "model.onnx")
        agree(network, tmp_path / "model.onnx", 32)


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    """And is itself left as it was."""
    network = seeded({"name": "unet", "encoder": "resnet18", "width": 4}, 3, 4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for name in ("a.onnx", "b.onnx"):
        export_onnx(network, 3, 32, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert list(network.state_dict()) == list(before)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.slow
def test_the_other_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken when the first cannot; it gives the same, and tells nothing of this machine."""
    pytest.importorskip("onnxscript")

    def fails(*_: object) -> None:
        raise RuntimeError("no tracing")

    monkeypatch.setattr(export, "_by_tracing", fails)
    path = tmp_path / "model.onnx"
    network = small()
    assert export_onnx(network, 3, 2, path) == "torch.export"
    agree(network, path, 2)
    check_self_contained(path)
    here = Path(tilemap.__file__).parents[1]
    assert str(here).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()


def test_when_neither_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's reason is told; without onnxscript, what to install."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("never on a Monday")

    with pytest.raises(ModelError, match="cannot be written as ONNX: ValueError: never on a Mon"):
        export_onnx(Odd(), 3, 2, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UnavailableError, match=r"pip install 'tilemap\[export\]'"):
        export_onnx(Odd(), 3, 2, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
