"""Two scenes through a model of two dates: what changed between them, tile by tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from tilemap.api import segment
from tilemap.models import registry
from tilemap.models.card import ClassInfo, ModelCard
from tilemap.testing import random_scene, write_geotiff

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
SHAPE = (90, 133)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Changed where |after - before| is above 0.05, in logits, pixel by pixel."""
    from onnx import TensorProto, helper, numpy_helper

    difference = np.array([[-1.0, 1.0]], np.float32).reshape(1, 2, 1, 1)
    logits = np.array([0.0, 400.0], np.float32).reshape(2, 1, 1, 1)
    bias = np.array([0.0, -20.0], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "d"], ["s"]),
            helper.make_node("Abs", ["s"], ["a"]),
            helper.make_node("Conv", ["a", "l", "b"], ["y"]),
        ],
        "change",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [
            numpy_helper.from_array(array, name)
            for array, name in ((difference, "d"), (logits, "l"), (bias, "b"))
        ],
    )
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    card = ModelCard(
        name="difference", title="Difference", description="A threshold.", license="Apache-2.0",
        bands=("before_nir", "after_nir"), stride=1, context=0, activation="logits",
        units="reflectance", architecture={}, weights="model.onnx",
        sha256=registry.file_sha256(path),
        classes=(ClassInfo(value=0, name="same", color="#dddddd"),
                 ClassInfo(value=1, name="change", color="#cc0000")),
    )  # fmt: skip
    registry.save_card(card, folder)
    return folder


def test_a_model_of_two_dates(model: Path, tmp_path: Path) -> None:
    """The map of tiles is that of the arrays; the earlier scene may lie on a larger grid."""
    early = random_scene((110, 150), 1, 3)
    late = early[:, 10:100, 7:140].astype(np.int64)
    late[:, 20:45, 30:80] += 900
    late[:, 60:70, 90:] -= 600
    late = np.clip(late, 1, 20000).astype(np.uint16)
    from affine import Affine

    paths = [
        write_geotiff(
            tmp_path / f"{name}.tif", pixels, names=("nir",), scale=1e-4,
            transform=Affine(10, 0, 400_000 + 10 * left, 0, -10, 4_100_000 - 10 * top),
        )
        for name, pixels, top, left in (("early", early, 0, 0), ("late", late, 10, 7))
    ]  # fmt: skip
    result = segment(
        paths[1], before=paths[0], model=model, out=tmp_path / "out", workers=1, core=48, halo=0
    )
    with rasterio.open(result.landcover) as file:
        got = file.read(1)
    moved = np.abs(late[0].astype(float) - early[0, 10:100, 7:140]) * 1e-4
    assert got.shape == SHAPE
    clear = np.abs(moved - 0.05) > 1e-4
    assert np.array_equal(got[clear], (moved > 0.05)[clear])
    assert 0.1 < got.mean() < 0.3
