"""A small real model for Pucallpa: a logistic regression of single pixels, as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from tilemap.models.card import ClassInfo, ModelCard
from tilemap.models.registry import file_sha256, save_card

BANDS = ("swir16", "nir", "red", "green")
CLASSES = (("water", "#2f6fb5"), ("vegetation", "#3b8c4b"), ("bare", "#d9a45a"))


def weak_labels(image: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Class index by NDWI and NDVI, (y, x); -1 where nothing was observed."""
    _, nir, red, green = image.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        water = (green - nir) / (green + nir) > 0
        green_ = (nir - red) / (nir + red) > 0.4
    labels = np.where(water, 0, np.where(green_, 1, 2))
    return np.where((image == 0).all(axis=0), -1, labels)


def make_pixel_model(scene: Path, folder: Path, name: str = "pucallpa-pixels") -> Path:
    """Fit the weak labels of one date, and leave a model folder.

    Returns:
        The folder.
    """
    import onnx
    from sklearn.linear_model import LogisticRegression

    with rasterio.open(scene) as file:
        image = file.read()
    labels = weak_labels(image)
    seen = labels >= 0
    pixels = image[:, seen].T.astype(np.float64)
    mean, std = pixels.mean(axis=0), pixels.std(axis=0)
    pick = np.random.default_rng(3).choice(len(pixels), 20_000, replace=False)
    fitted = LogisticRegression(max_iter=300).fit((pixels[pick] - mean) / std, labels[seen][pick])
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    helper, to_tensor = onnx.helper, onnx.numpy_helper.from_array
    float_, sides = onnx.TensorProto.FLOAT, ["h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight", "bias"], ["y"], kernel_shape=[1, 1])],
        name,
        [helper.make_tensor_value_info("x", float_, ["n", len(BANDS), *sides])],
        [helper.make_tensor_value_info("y", float_, ["n", len(CLASSES), *sides])],
        [
            to_tensor(fitted.coef_.astype(np.float32)[:, :, None, None], "weight"),
            to_tensor(fitted.intercept_.astype(np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    save_card(
        ModelCard(
            name=name,
            title="Pixels of Pucallpa",
            description="Logistic regression of single pixels on NDWI and NDVI of one date.",
            license="Apache-2.0",
            bands=BANDS,
            units="stored",
            mean=tuple(float(v) for v in mean),
            std=tuple(float(v) for v in std),
            stride=1,
            activation="logits",
            classes=tuple(
                ClassInfo(value=value, name=word, color=color)
                for value, (word, color) in enumerate(CLASSES, 1)
            ),
            context=0,
            weights=path.name,
            sha256=file_sha256(path),
        ),
        folder,
    )
    return folder
