"""True areas against published and independent figures."""

from __future__ import annotations

import math

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod, Proj

from tilemap.area import CellArea, outline
from tilemap.geometry import TileGrid, Window

EARTH_KM2 = 510_065_621.724  # WGS 84
WORLD = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")


def total(geobox: GeoBox, core: int) -> float:
    """Area of a raster, core by core."""
    shape = (int(geobox.shape[0]), int(geobox.shape[1]))
    grid, cell = TileGrid(shape, core, 0, 0), CellArea(geobox)
    windows = (grid.core_window(tile) for tile in grid.tiles())
    return math.fsum(cell.mean_km2(window) * window.size for window in windows)


@pytest.mark.parametrize("core", [7, 64, 1000])
def test_whole_earth(core: int) -> None:
    """The cells of a world in degrees sum to the ellipsoid, however it is cut."""
    assert total(WORLD, core) == pytest.approx(EARTH_KM2, abs=0.001)


def test_south_up_world() -> None:
    """The same, south up."""
    geobox = GeoBox((180, 360), Affine(1, 0, -180, 0, 1, -90), "EPSG:4326")
    assert total(geobox, 50) == pytest.approx(EARTH_KM2, abs=0.001)


@given(lat=st.floats(-80, 79), lon=st.floats(-180, 170), step=st.floats(1e-5, 0.01))
def test_small_geographic_cell_equals_geodesics(lat: float, lon: float, step: float) -> None:
    """A cell in degrees is as large as the geodesic polygon around many points of its edge."""
    geobox = GeoBox((3, 2), Affine(step, 0, lon, 0, -step, lat), "EPSG:4326")
    rows, cols = outline(Window(0, 0, 3, 2), 50)
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(lon + step * cols, lat - step * rows)
    expected = abs(area) / 6 / 1e6
    assert CellArea(geobox).mean_km2(Window(0, 0, 3, 2)) == pytest.approx(expected, rel=1e-5)


def test_utm_ten_metres() -> None:
    """At the central meridian the map is 0.9996 of the ground in both directions."""
    affine = Affine(10, 0, 500_000 - 500, 0, -10, 4_000_000)
    cell = CellArea(GeoBox((100, 100), affine, "EPSG:32618"))
    assert cell.mean_km2(Window(0, 0, 100, 100)) == pytest.approx(1e-4 / 0.9996**2, rel=1e-6)


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [
        ("EPSG:32618", 250_000, 4_000_000),
        ("EPSG:3035", 4_500_000, 3_300_000),
        ("EPSG:3031", 1_000_000, 2_000_000),
        ("EPSG:2263", 1_000_000, 200_000),
        ("+proj=sinu +R=6371007.181", -6_000_000, -1_000_000),
    ],
)
def test_equals_the_areal_scale(crs: str, x: float, y: float) -> None:
    """Map area divided by PROJ's areal scale, in feet and on a sphere too."""
    geobox = GeoBox((40, 30), Affine(10, 0, x, 0, -10, y), crs)
    system = pyproj.CRS(crs)
    proj = Proj(system)
    factors = proj.get_factors(*proj(x + 150, y - 200, inverse=True))
    metre = system.axis_info[0].unit_conversion_factor
    expected = 100 * metre**2 / factors.areal_scale / 1e6
    got = CellArea(geobox).mean_km2(Window(0, 0, 40, 30))
    assert got == pytest.approx(expected, rel=1e-6)


def test_web_mercator_at_sixty_degrees() -> None:
    """EPSG:3857 overstates areas by sec^2: 4 times at 60 degrees, within what flattening does."""
    y = 6378137 * math.log(math.tan(math.pi / 4 + math.radians(60) / 2))
    geobox = GeoBox((100, 100), Affine(10, 0, 1e6, 0, -10, y + 500), "EPSG:3857")
    mean = CellArea(geobox).mean_km2(Window(0, 0, 100, 100))
    assert 1e-4 / mean == pytest.approx(4, rel=0.005)
    # exact: (a / N) (a / M) sec^2, with the radii of curvature at that latitude
    e2 = 0.00669437999014
    bent = 1 - e2 * math.sin(math.radians(60)) ** 2
    exact = 4 * math.sqrt(bent) * bent**1.5 / (1 - e2)
    assert 1e-4 / mean == pytest.approx(exact, rel=1e-5)


def test_large_core_is_the_sum_of_small_ones() -> None:
    """The outline of a core of 1,000 km is followed closely enough."""
    geobox = GeoBox((1000, 1000), Affine(1000, 0, 4e6, 0, -1000, 3.5e6), "EPSG:3035")
    assert total(geobox, 1000) == pytest.approx(total(geobox, 50), rel=2e-5)
    assert total(geobox, 50) == pytest.approx(1e6, rel=1e-6)  # an equal-area projection


def test_rotated_pixels() -> None:
    """The determinant counts, not the length of an edge."""
    geobox = GeoBox((20, 30), Affine(8, 2, 4.5e6, 1, -9, 3.3e6), "EPSG:3035")
    assert CellArea(geobox).mean_km2(Window(0, 0, 20, 30)) == pytest.approx(74e-6, rel=1e-6)


def test_rotated_degrees() -> None:
    """A rotated grid in degrees is measured along its outline."""
    small = Affine(1e-4, 2e-5, 10, 1e-5, -1e-4, 50)
    cell = CellArea(GeoBox((50, 40), small, "EPSG:4326"))
    straight = CellArea(GeoBox((50, 40), Affine(1e-4, 0, 10, 0, -1e-4, 50), "EPSG:4326"))
    ratio = cell.mean_km2(Window(0, 0, 50, 40)) / straight.mean_km2(Window(0, 0, 50, 40))
    assert ratio == pytest.approx(1.02, rel=1e-4)


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_unknown_where_nothing_ties_to_the_earth(crs: str | None) -> None:
    """No CRS, or a local one: no area, and no guess."""
    cell = CellArea(GeoBox((4, 4), Affine(10, 0, 0, 0, -10, 0), crs))
    assert not cell.known
    assert math.isnan(cell.mean_km2(Window(0, 0, 4, 4)))


def test_beyond_the_projection() -> None:
    """A corner that is nowhere on Earth gives no number instead of a wrong one."""
    cell = CellArea(GeoBox((4, 4), Affine(1e7, 0, -2e7, 0, -1e7, 2e7), "EPSG:3035"))
    assert np.isnan(cell.mean_km2(Window(0, 0, 4, 4)))


def test_empty_window() -> None:
    """Nothing has no mean."""
    assert math.isnan(CellArea(WORLD).mean_km2(Window(3, 3, 3, 9)))
