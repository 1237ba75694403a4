"""Eight bits: smaller, integer kernels in both engines, few labels changed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import ModelError, UnavailableError
from tilemap.models.card import ModelCard
from tilemap.models.export import export_onnx
from tilemap.models.networks import seeded
from tilemap.models.onnx_model import OnnxModel
from tilemap.models.openvino_model import OpenVinoModel
from tilemap.models.parity import compare
from tilemap.models.quantize import quantise_onnx
from tilemap.models.registry import file_sha256

from .conftest import OnnxFile, make_card

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def smooth(seed: int) -> np.ndarray:
    """A patch of blobs of several sizes, standardised."""
    generator = np.random.default_rng(seed)
    planes = sum(
        np.kron(generator.normal(size=(3, 128 // side, 192 // side)), np.ones((1, side, side)))
        for side in (32, 8, 1)
    )
    result: np.ndarray = np.asarray(planes / 1.7, dtype=np.float32)
    return result


@pytest.fixture(scope="module")
def floating(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelCard, Path]:
    """A small network as a float32 ONNX file."""
    path = tmp_path_factory.mktemp("floating") / "model.onnx"
    export_onnx(seeded({"name": "unet", "encoder": "resnet18", "width": 16}, 3, 4), 3, 32, path)
    return make_card(path, 3, 4, stride=32), path


def test_smaller_and_alike_in_both_engines(
    floating: tuple[ModelCard, Path], tmp_path: Path
) -> None:
    """A third of the size; labels of other patches than it was calibrated on stay, but for few."""
    card, source = floating
    path = tmp_path / "int8.onnx"
    count = quantise_onnx(card, source, path, [smooth(seed) for seed in range(3)])
    model = onnx.load(path)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert count == len(convolutions) - 2
    made = {node.output[0]: node.op_type for node in model.graph.node}
    integer = [made.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    assert integer == [False] + [True] * count + [False]
    assert path.stat().st_size < 0.35 * source.stat().st_size
    told = card.model_copy(update={"sha256": file_sha256(path), "architecture": {"int8": True}})
    pytest.importorskip("openvino")
    models = [OnnxModel(told, path), OpenVinoModel(told, path)]
    assert [m.backend for m in models] == ["onnxruntime int8 cpu", "openvino int8 cpu"]
    for other in models:
        found = compare(OnnxModel(card, source), other, [smooth(seed) for seed in (7, 8)])
        assert found.classes > 1
        assert 0 < found.labels_differ < 0.05  # a random network decides by little
        assert found.miou > 0.85


def test_the_same_patches_give_the_same_bytes(
    floating: tuple[ModelCard, Path], tmp_path: Path
) -> None:
    """And the source is as it was."""
    card, source = floating
    before = source.read_bytes()
    for name in ("a.onnx", "b.onnx"):
        quantise_onnx(card, source, tmp_path / name, [smooth(1)])
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_what_cannot_be_quantised(onnx_file: OnnxFile, tmp_path: Path) -> None:
    """No patches to calibrate on; too few convolutions; no such size of patch."""
    card, source = onnx_file()
    out = tmp_path / "out.onnx"
    with pytest.raises(ModelError, match="at least one patch of a real scene, got none"):
        quantise_onnx(card, source, out, [])
    with pytest.raises(ModelError, match="no convolution between its first and its last"):
        quantise_onnx(card, source, out, [smooth(1)])
    assert not out.exists()


def test_without_the_packages(onnx_file: OnnxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs them."""
    card, source = onnx_file()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"pip install 'tilemap\[export\]'"):
        quantise_onnx(card, source, source.with_name("out.onnx"), [smooth(1)])
