"""The OpenVINO backend against ONNX Runtime, and every way a file can contradict its card."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import ModelError, UnavailableError
from tilemap.geometry import Window
from tilemap.models.onnx_model import OnnxModel
from tilemap.models.openvino_model import OpenVinoModel
from tilemap.models.registry import load, resolve

from .conftest import OnnxFile

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")


def patch(bands: int, rows: int, cols: int, seed: int = 3) -> np.ndarray:
    """A standardised image."""
    return np.random.default_rng(seed).normal(size=(bands, rows, cols)).astype(np.float32)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("side", [None, 24])
@pytest.mark.parametrize("activation", ["logits", "softmax", "sigmoid"])
def test_equal_to_onnx_runtime(
    onnx_file: OnnxFile, layout: str, side: int | None, activation: str
) -> None:
    """In every layout, size and activation, whole and cropped."""
    planes = {"classes": 2, "planes": 1} if activation == "sigmoid" else {}
    card, path = onnx_file(layout=layout, side=side, activation=activation, **planes)
    image = patch(3, 24, 24 if side else 40)
    expected = OnnxModel(card, path).predict(image)
    model = OpenVinoModel(card, path)
    result = model.predict(image)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    crop = model.predict(image, Window(2, 3, 20, 24))
    np.testing.assert_array_equal(crop, result[:, 2:20, 3:24])
    assert crop.flags.c_contiguous


@pytest.mark.parametrize("activation", ["logits", "softmax"])
def test_a_result_outlives_the_next_forward(onnx_file: OnnxFile, activation: str) -> None:
    """It does not lie in memory that the engine uses again."""
    card, path = onnx_file(activation=activation)
    model = OpenVinoModel(card, path)
    first = model.predict(patch(3, 16, 24))
    kept = first.copy()
    model.predict(patch(3, 16, 24, seed=4))
    np.testing.assert_array_equal(first, kept)


def test_the_image_is_left_alone(onnx_file: OnnxFile) -> None:
    """It is read where it lies, and may be a view or read-only."""
    card, path = onnx_file()
    image = patch(3, 32, 48)
    image.setflags(write=False)
    kept = image.copy()
    model = OpenVinoModel(card, path)
    expected = model.predict(np.ascontiguousarray(image[:, ::2, ::2]))
    np.testing.assert_array_equal(model.predict(image[:, ::2, ::2]), expected)
    model.predict(image)
    np.testing.assert_array_equal(image, kept)


def test_a_shipped_model_of_any_size() -> None:
    """One file, patches of several shapes in turn, as ONNX Runtime has them."""
    models = [
        load(resolve("iplunet-cloud-6b"), engine=name) for name in ("onnxruntime", "openvino")
    ]
    for shape in ((64, 96), (32, 32), (64, 96), (100, 52)):
        image = 0.3 + 0.1 * patch(6, *shape)
        expected, result = (model.predict(image) for model in models)
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)


def test_bfloat16_is_told_and_changes_little(onnx_file: OnnxFile) -> None:
    """More than rounding of float32, less than one part in a hundred."""
    card, path = onnx_file(bands=64)
    image = patch(64, 24, 40) / 8
    models = [OpenVinoModel(card, path, precision) for precision in ("float32", "bfloat16")]
    assert [model.backend for model in models] == ["openvino float32 cpu", "openvino bfloat16 cpu"]
    gap = np.abs(models[0].predict(image) - models[1].predict(image)).max()
    assert 1e-6 < gap < 1e-2


@pytest.mark.parametrize(
    ("made", "card", "message"),
    [
        ({}, {"bands": ("red",)}, "input does not fit: card says NCHW, 1 planes"),
        ({"side": 24}, {"patch": 48}, "card says NCHW, 3 planes of 48 x 48"),
        ({"planes": 5}, {}, "output does not fit: card says NCHW, 4 planes"),
    ],
)
def test_contradictions_of_card_and_file_are_named(
    onnx_file: OnnxFile, made: dict[str, object], card: dict[str, object], message: str
) -> None:
    """As by the other engine."""
    good, path = onnx_file(**made)
    with pytest.raises(ModelError) as caught:
        OpenVinoModel(good.model_copy(update=card), path)
    assert message in str(caught.value)


def test_what_is_no_model_is_refused(onnx_file: OnnxFile, tmp_path: Path) -> None:
    """No protocol buffer, half of one, and one with an operator that is none: one line each."""
    onnx = pytest.importorskip("onnx")
    card, path = onnx_file()
    whole = path.read_bytes()
    wrong = onnx.load(path)
    wrong.graph.node[0].op_type = "Unheard"
    for content in (b"no protobuf", whole[: len(whole) // 2], wrong.SerializeToString()):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.onnx is not a model: ") as caught:
            OpenVinoModel(card, path)
        assert "\n" not in str(caught.value)


def test_without_openvino_the_extra_is_named(
    onnx_file: OnnxFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that installs it."""
    card, path = onnx_file()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnavailableError) as caught:
        OpenVinoModel(card, path)
    assert "pip install 'tilemap[openvino]'" in str(caught.value)
