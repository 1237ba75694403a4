"""A local host, a small real COG, and limits that let tests fail quickly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window as RasterioWindow

from tilemap.stores.remote.limits import Limits
from tilemap.stores.remote.pool import pool

from .server import RangeServer

QUICK = Limits(wait_s=0.01, longest_wait_s=0.05, silence_s=2.0, connect_s=2.0)


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    """No test reads what another one has fetched."""
    pool().cache.clear()


@pytest.fixture
def server() -> Iterator[RangeServer]:
    """A host without files."""
    with RangeServer() as running:
        yield running


@pytest.fixture(scope="session")
def cog(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1024 x 1100 pixels of the Virginia scene, four bands, as a COG with blocks of 256."""
    path = tmp_path_factory.mktemp("cog") / "virginia_10m.tif"
    with rasterio.open(data / "scenes" / "s2_l1c_va_eastern_shore_10m.tif") as scene:
        part = RasterioWindow(200, 300, 1100, 1024)
        pixels = scene.read(window=part)
        affine = Affine(10, 0, scene.transform.c + 2000, 0, -10, scene.transform.f - 3000)
        profile = {
            "driver": "COG", "dtype": "uint16", "count": 4, "height": 1024, "width": 1100,
            "crs": scene.crs, "transform": affine, "compress": "deflate", "blocksize": 256,
        }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
        for band, name in enumerate(("blue", "green", "red", "nir"), 1):
            out.set_band_description(band, name)
    assert np.ptp(pixels) > 1000
    return path
