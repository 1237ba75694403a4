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


# --- pixel by pixel ----------------------------------------------------------------------------


def cells(geobox: GeoBox, core: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Area of each pixel of a raster, read core by core."""
    rows, cols = (int(n) for n in geobox.shape)
    grid, cell = TileGrid((rows, cols), core, 0, 0), CellArea(geobox)
    area = np.full((rows, cols), -1.0)
    for tile in grid.tiles():
        window = grid.core_window(tile)
        area[window.within(grid.scene_window)] = cell.cell_km2(window)
    return area


@pytest.mark.parametrize("core", [7, 64, 1000])
def test_every_pixel_of_the_whole_earth(core: int) -> None:
    """In degrees the pixels of a world sum to the ellipsoid, however it is cut."""
    assert math.fsum(cells(WORLD, core).ravel()) == pytest.approx(EARTH_KM2, abs=0.001)


@pytest.mark.parametrize(
    "geobox",
    [
        GeoBox((181, 130), Affine(30, 0, 250_000, 0, -30, 4_000_000), "EPSG:32618"),
        GeoBox((181, 130), Affine(3e-4, 0, -70, 0, -2e-4, -9), "EPSG:4326"),
        GeoBox((181, 130), Affine(3e-4, 1e-4, -70, 1e-4, -2e-4, -9), "EPSG:4326"),
        GeoBox((181, 130), Affine(2e4, 0, -1.9e7, 0, -2e4, 1.8e7), "EPSG:3857"),
        GeoBox((181, 130), Affine(1e5, 0, -6.5e6, 0, -1e5, 8e6), "EPSG:3035"),
    ],
    ids=["utm", "degrees", "rotated degrees", "large pixels", "beyond the Earth"],
)
def test_a_pixel_has_one_area_however_the_map_is_cut(geobox: GeoBox) -> None:
    """To the last bit, in cores of any size, and NaN in the same places."""
    whole_map = cells(geobox, 1000)
    for core in (13, 50, 64, 129):
        assert np.array_equal(cells(geobox, core), whole_map, equal_nan=True)
    assert not (whole_map <= 0).any()


@pytest.mark.parametrize(
    ("crs", "x", "y", "size"),
    [
        ("EPSG:32618", 250_000, 4_000_000, 30),
        ("EPSG:3395", 3_628_000, 39_000, 0.0746),
        ("EPSG:3395", 1e6, 8.4e6, 1000),
        ("EPSG:3031", -40_000, 50_000, 700),
        ("EPSG:2263", 1_000_000, 200_000, 300),
        ("+proj=sinu +R=6371007.181", -6_000_000, -1_000_000, 231.66),
    ],
)
def test_pixels_equal_the_areal_scale(crs: str, x: float, y: float, size: float) -> None:
    """Each one, against PROJ's own areal scale at its centre; the pole is one of the pixels."""
    shape = (150, 131)
    geobox = GeoBox(shape, Affine(size, 0, x, 0, -size, y), crs)
    system = pyproj.CRS(crs)
    row, col = np.mgrid[: shape[0], : shape[1]] + 0.5
    proj = Proj(system)
    lon, lat = proj(x + size * col, y - size * row, inverse=True)
    metre = system.axis_info[0].unit_conversion_factor
    expected = (size * metre) ** 2 / proj.get_factors(lon, lat).areal_scale / 1e6
    np.testing.assert_allclose(cells(geobox, 64), expected, rtol=2e-6)


def test_pixels_of_web_mercator() -> None:
    """A quarter of what the map says at 60 degrees, all of it at the equator, and exactly so.

    Exact: ``(N / a) (M / a) cos^2`` with the radii of curvature N and M at that latitude.
    """
    rows, e2 = np.arange(91) + 0.5, 0.00669437999014
    for latitude, times in ((60, 4), (0, 1)):
        y = 6378137 * math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2)) + 455
        lat = 2 * np.arctan(np.exp((y - 10 * rows) / 6378137)) - math.pi / 2
        bent = 1 - e2 * np.sin(lat) ** 2
        exact = 1e-4 * np.cos(lat) ** 2 * (1 - e2) / bent**2
        area = cells(GeoBox((91, 70), Affine(10, 0, 1e6, 0, -10, y), "EPSG:3857"), 50)
        np.testing.assert_allclose(area, np.broadcast_to(exact[:, None], (91, 70)), rtol=1e-6)
        np.testing.assert_allclose(1e-4 / area, times, rtol=0.007)


def test_pixels_sum_to_the_outline() -> None:
    """Both ways of measuring agree where they can be compared: on 40 km, far off centre."""
    geobox = GeoBox((400, 300), Affine(100, 0, 800_000, 0, -100, 7_000_000), "EPSG:32633")
    window = Window(0, 0, 400, 300)
    total_km2 = CellArea(geobox).cell_km2(window).sum()
    assert total_km2 == pytest.approx(CellArea(geobox).mean_km2(window) * window.size, rel=1e-6)


def test_pixels_beyond_the_projection() -> None:
    """The disc of the Earth in an equal-area projection: inside map areas, outside nothing."""
    geobox = GeoBox((271, 265), Affine(1e5, 0, -1.32e7, 0, -1e5, 1.35e7), "+proj=laea +lat_0=40")
    row, col = np.mgrid[:271, :265] + 0.5
    radius = np.hypot(-1.32e7 + 1e5 * col, 1.35e7 - 1e5 * row)
    area = cells(geobox, 100)
    assert np.isnan(area[radius > 1.276e7]).all()
    np.testing.assert_allclose(area[radius < 9e6], 1e4, rtol=1e-3)
    assert np.isfinite(area[radius < 1.26e7]).all()


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_pixels_of_nowhere(crs: str | None) -> None:
    """No CRS, or a local one: no area of any pixel."""
    area = CellArea(GeoBox((4, 5), Affine(10, 0, 0, 0, -10, 0), crs)).cell_km2(Window(1, 0, 4, 5))
    assert area.shape == (3, 1)
    assert np.isnan(area).all()


def test_pixels_of_an_empty_window() -> None:
    """No pixels, no error."""
    utm = GeoBox((40, 30), Affine(10, 0, 250_000, 0, -10, 4_000_000), "EPSG:32618")
    assert CellArea(utm).cell_km2(Window(3, 3, 3, 9)).shape == (0, 6)
