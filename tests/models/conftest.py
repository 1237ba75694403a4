"""Models to test with: seeded networks as files, and small ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tilemap.models.card import ClassInfo, ModelCard
from tilemap.models.networks import STRIDE, seeded
from tilemap.models.registry import file_sha256

TorchFile = Callable[..., tuple[torch.nn.Module, ModelCard, Path]]
OnnxFile = Callable[..., tuple[ModelCard, Path]]


def make_card(path: Path, bands: int, classes: int, **fields: Any) -> ModelCard:
    """A card for a file that is there."""
    return ModelCard(
        **{
            "name": "test-model",
            "title": "Test",
            "description": "Of no use.",
            "license": "Apache-2.0",
            "bands": tuple(f"band_{i + 1}" for i in range(bands)),
            "classes": tuple(
                ClassInfo(value=i + 1, name=f"class {i}", color=f"#0000{i:02x}")
                for i in range(classes)
            ),
            "weights": path.name,
            "sha256": file_sha256(path),
            **fields,
        }
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's registry of its own for each test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TILEMAP_HOME", str(folder))
    return folder


@pytest.fixture
def torch_file(tmp_path: Path) -> TorchFile:
    """Makes a seeded network, its card and its file."""

    def make(
        name: str = "unet", bands: int = 3, classes: int = 4, **fields: Any
    ) -> tuple[torch.nn.Module, ModelCard, Path]:
        architecture = {"name": name, "encoder": "resnet18", "width": 4}
        network = seeded(architecture, bands, classes)
        path = tmp_path / "model.safetensors"
        save_file(network.state_dict(), path)
        fields = {"architecture": architecture, "stride": STRIDE[name], **fields}
        return network, make_card(path, bands, classes, **fields), path

    return make


@pytest.fixture
def onnx_file(tmp_path: Path) -> OnnxFile:
    """Makes a 1 x 1 convolution with an activation as an ONNX file, and its card."""
    onnx = pytest.importorskip("onnx")

    def make(
        bands: int = 3,
        classes: int = 4,
        planes: int | None = None,
        layout: str = "NCHW",
        side: int | None = None,
        activation: str = "logits",
        **fields: Any,
    ) -> tuple[ModelCard, Path]:
        helper = onnx.helper
        planes = planes or classes
        weight = np.random.default_rng(5).normal(size=(planes, bands, 1, 1)).astype(np.float32)
        nhwc = layout == "NHWC"
        sides = [side or "h", side or "w"]
        ends = [["n", *sides, count] if nhwc else ["n", count, *sides] for count in (bands, planes)]
        nodes, last = [], "x"
        if nhwc:
            nodes.append(helper.make_node("Transpose", ["x"], ["xc"], perm=[0, 3, 1, 2]))
            last = "xc"
        nodes.append(helper.make_node("Conv", [last, "weight"], ["z"], kernel_shape=[1, 1]))
        last = "z"
        if activation != "logits":
            operator = {"softmax": "Softmax", "sigmoid": "Sigmoid"}[activation]
            options = {"axis": 1} if activation == "softmax" else {}
            nodes.append(helper.make_node(operator, ["z"], ["p"], **options))
            last = "p"
        if nhwc:
            nodes.append(helper.make_node("Transpose", [last], ["y"], perm=[0, 2, 3, 1]))
        else:
            nodes.append(helper.make_node("Identity", [last], ["y"]))
        graph = helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ends[0])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ends[1])],
            [onnx.numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        fields = {"layout": layout, "patch": side, "activation": activation, **fields}
        return make_card(path, bands, classes, **{"stride": 1, **fields}), path

    return make
