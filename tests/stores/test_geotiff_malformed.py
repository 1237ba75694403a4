"""Hundreds of malformed and odd TIFFs: each works, with rasterio's pixels, or fails in words."""

from __future__ import annotations

import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tilemap.errors import TilemapError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene

# has one strip of 2 GB that unpacks from nothing, which takes GDAL seconds
SLOW = {"autotest_gcore_data_excessive-memory-TIFFFillStrip2.tif"}


def plain(path: Path, source: SceneSource, window: Window) -> np.ndarray | None:
    """The window by rasterio alone, None if it cannot read it."""
    raster = source.layers[0].rasters[0]
    part = ((window.top, window.bottom), (window.left, window.right))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path) as dataset:
                pixels: np.ndarray = dataset.read([b.index for b in raster.bands], window=part)
                return pixels
    except Exception:
        return None


def check(path: Path) -> int:
    """Windows that could be compared; 0 if the file was refused."""
    compared = 0
    try:
        source = open_scene(SceneRequest((str(path),)))
        rows, cols = source.scene.shape
        with source.open() as reader:
            for top, left in {(0, 0), (rows // 2, cols // 2), (rows - 256, cols - 256)}:
                top, left = max(top, 0), max(left, 0)
                window = Window(top, left, min(top + 256, rows), min(left + 256, cols))
                image, valid = reader.read(window)
                want = plain(path, source, window)
                if want is not None:
                    np.testing.assert_array_equal(image, np.where(valid, want, 0), str(path))
                    compared += 1
    except TilemapError as problem:
        said = str(problem)
        if path.name not in said or "\n" in said:
            pytest.fail(f"an error must name {path} in one line, got {said!r}")
    return compared


@pytest.mark.parametrize(
    ("name", "files", "readable"),
    [
        ("cog_and_rasterio_fixtures", 31, 29),
        ("image_tiff_fuzz", 255, 110),
        ("gdal_autotest_tiffs", 520, 450),
    ],
)
def test_malformed(data: Path, tmp_path: Path, name: str, files: int, readable: int):
    """No file crashes, hangs, or gives other pixels than rasterio."""
    with tarfile.open(data / "malformed" / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    paths = [p for p in sorted(tmp_path.rglob("*")) if p.is_file() and p.name not in SLOW]
    assert len(paths) >= files - len(SLOW)
    assert sum(check(path) > 0 for path in paths) >= readable
