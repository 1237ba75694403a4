"""A real scene with a hand-drawn mask, mapped by the model that was trained for such scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tilemap
from tilemap.geometry import TileGrid
from tilemap.models import registry
from tilemap.testing import map_in_memory, write_geotiff

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
NAMES = {0: "shadow", 1: "water", 2: "snow", 3: "land", 4: "cloud"}


def test_the_teacher_has_its_known_accuracy(data: Path, tmp_path: Path) -> None:
    """0.9700 of the pixels: what ONNX Runtime alone gives for the four patches of 256 pixels."""
    pytest.importorskip("onnxruntime")
    scene = np.load(data / "scenes" / "csmask_sentinel2_512_6b_5class.npz")
    image = np.moveaxis(scene["img"], -1, 0).astype(np.float32)
    files = [
        write_geotiff(tmp_path / "scene.tif", image, names=BANDS, scale=1.0),
        write_geotiff(tmp_path / "mask.tif", scene["msk"].reshape(1, 512, 512).astype(np.uint8)),
    ]
    model = registry.load(
        registry.resolve(data / "models" / "ukis_csmask_0.2.1_model_6b_5class.onnx")
    )
    source = tilemap.open_scene(tilemap.SceneRequest((str(files[0]),), bands=model.card.bands))
    with source.open() as reader:
        grid = TileGrid((512, 512), 256, 0, 0, model.card.stride, fixed=True)
        landcover, confidence = map_in_memory(reader, model, grid)
    assert {c.value: c.name for c in model.card.classes} == NAMES
    path = write_geotiff(tmp_path / "map.tif", landcover[None], nodata=255)
    write_geotiff(tmp_path / "confidence.tif", confidence[None], nodata=255)
    import rasterio

    with rasterio.open(path, "r+") as file:
        file.update_tags(**{f"CLASS_{value}": name for value, name in NAMES.items()})
    figures = tilemap.evaluate(path, reference=files[1]).figures
    assert figures["overall_accuracy"] == pytest.approx(0.96999, abs=2e-4)
    assert figures["overall_accuracy"] == (landcover == scene["msk"].reshape(512, 512)).mean()
    assert figures["classes"][2]["iou"] is None  # no snow
    assert 0 < figures["calibration"]["ece"] < 0.05
    assert 0.85 < figures["boundary"]["mean_f1"] < 1
