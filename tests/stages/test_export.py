"""Export: exact counts, true areas, verified against a second read, all or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox

from tilemap.area import CellArea
from tilemap.errors import StoreError
from tilemap.geometry import TileGrid, Window
from tilemap.stages.export import count_values, export_raster
from tilemap.stores.cog import RasterProfile, partial_path, publish

Bytes = npt.NDArray[np.uint8]
SHAPE = (301, 257)


def pixels() -> Bytes:
    """Numbers without symmetry, nodata among them."""
    rng = np.random.default_rng(5)
    return rng.choice(np.array([0, 2, 7, 255], np.uint8), size=SHAPE, p=[0.1, 0.2, 0.3, 0.4])


def profile(crs: str | None = "EPSG:3035", shape: tuple[int, int] = SHAPE) -> RasterProfile:
    """An equal-area grid of 10 m."""
    return RasterProfile(GeoBox(shape, Affine(10, 0, 4.5e6, 0, -10, 3.3e6), crs))


GRID = TileGrid(SHAPE, 64, 32, 16, stride=32)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), unique=False),
    st.booleans(),
)
def test_count_values_equals_bincount(array: Bytes, turned: bool) -> None:
    """Odd sizes and other memory orders too."""
    view = array.T if turned else array
    np.testing.assert_array_equal(count_values(view), np.bincount(array.ravel(), minlength=256))


def test_exports_what_the_store_holds(tmp_path: Path) -> None:
    """Pixels, counts, areas and digest agree with the file."""
    source = pixels()
    path = tmp_path / "out.tif"
    receipt = export_raster(
        lambda window: source[window.slices()], GRID, profile(), path, tmp_path / "scratch"
    )
    assert not path.exists()
    publish(partial_path(path), path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), source)
    content = path.read_bytes()
    assert receipt.sha256 == hashlib.sha256(content).hexdigest()
    assert receipt.bytes == len(content)
    assert receipt.counts == tuple(np.bincount(source.ravel(), minlength=256))
    assert receipt.areas_km2 is not None
    np.testing.assert_allclose(receipt.areas_km2, np.array(receipt.counts) * 1e-4, rtol=1e-6)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("crs", "transform", "tolerance"),
    [
        ("EPSG:4326", Affine(0.25, 0, -30, 0, -0.25, 84.0), 1e-12),
        ("EPSG:3857", Affine(9e3, 0, 0, 0, -9e3, 1.5e7), 1e-4),
        ("EPSG:32633", Affine(2e3, 0, 1e5, 0, -2e3, 7e6), 1e-4),
    ],
)
@pytest.mark.parametrize("core", [64, 301])
def test_areas_are_those_of_the_pixels_that_a_class_has(
    tmp_path: Path, crs: str, transform: Affine, tolerance: float, core: int
) -> None:
    """One class in the north and one in the south: not the mean pixel of a tile, in any cut."""
    source = np.ones(SHAPE, np.uint8)
    source[:100] = 2
    source[:, 200:] = 3
    look = RasterProfile(GeoBox(SHAPE, transform, crs))
    receipt = export_raster(
        lambda window: source[window.slices()], TileGrid(SHAPE, core, 0, 0), look,
        tmp_path / "out.tif", tmp_path / "scratch",
    )  # fmt: skip
    cell = CellArea(look.geobox)
    parts = {
        1: Window(100, 0, 301, 200), 2: Window(0, 0, 100, 200), 3: Window(0, 200, 301, 257)
    }  # fmt: skip
    assert receipt.areas_km2 is not None
    for number, window in parts.items():
        exact = cell.mean_km2(window) * window.size
        assert receipt.areas_km2[number] == pytest.approx(exact, rel=tolerance)


def test_bytes_do_not_depend_on_the_grid(tmp_path: Path) -> None:
    """Another core gives the same file."""
    source = pixels()
    digests = set()
    for core in (32, 96, 512):
        grid = TileGrid(SHAPE, core, 0, 0)
        receipt = export_raster(
            lambda window: source[window.slices()], grid, profile(), tmp_path / "o.tif", tmp_path
        )
        digests.add(receipt.sha256)
    assert len(digests) == 1


def test_no_areas_without_a_crs(tmp_path: Path) -> None:
    """A plain image has counts only."""
    source = pixels()
    receipt = export_raster(
        lambda window: source[window.slices()], GRID, profile(None), tmp_path / "o.tif", tmp_path
    )
    assert receipt.areas_km2 is None
    assert sum(receipt.counts) == source.size


def test_no_counts_of_wider_numbers(tmp_path: Path) -> None:
    """Two bands of days are exported and verified; there is nothing to count by number."""
    days = np.stack([pixels().astype(np.int32) * 100, pixels().astype(np.int32) - 300])
    look = RasterProfile(
        profile().geobox, dtype="int32", nodata=-300, overview="nearest", bands=("day", "gap")
    )
    path = tmp_path / "date.tif"
    receipt = export_raster(
        lambda window: days[(..., *window.slices())], GRID, look, path, tmp_path / "scratch"
    )
    assert receipt.counts == ()
    assert receipt.areas_km2 is None
    with rasterio.open(partial_path(path)) as file:
        np.testing.assert_array_equal(file.read(), days)


class Forgetful:
    """A store that answers otherwise the second time it is asked for one core."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.source = pixels()
        self.asked: set[Window] = set()

    def __call__(self, window: Window) -> Bytes:
        """Read one core."""
        array = self.source[window.slices()].copy()
        if window.top == 64 and window in self.asked:
            if self.error is not None:
                raise self.error
            array[3, 5] ^= 1
        self.asked.add(window)
        return array


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (None, StoreError, "at row 67, column 5, got"),
        (StoreError("chunk (1, 0) is missing"), StoreError, "is missing"),
        (ZeroDivisionError("bug"), ZeroDivisionError, "bug"),
    ],
)
def test_nothing_stays_of_a_failed_export(
    tmp_path: Path, error: Exception | None, kind: Any, message: str
) -> None:
    """A store that contradicts itself, or fails, leaves no file behind."""
    with pytest.raises(kind, match=message):
        export_raster(Forgetful(error), GRID, profile(), tmp_path / "o.tif", tmp_path / "scratch")
    assert [path.name for path in tmp_path.rglob("*")] == ["scratch"]


def test_grid_of_another_scene(tmp_path: Path) -> None:
    """Grid and geobox must agree."""
    with pytest.raises(StoreError, match="must agree in shape"):
        export_raster(Forgetful(), GRID, profile(shape=(300, 257)), tmp_path / "o.tif", tmp_path)
