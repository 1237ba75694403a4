"""Which pixel of the reference lies under which pixel of the map, against one point at a time."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from tilemap.geometry import Window
from tilemap.stores.placing import BENT, Placing

UTM = GeoBox((77, 101), Affine(30, 0, 440_000, 0, -30, 4_160_000), "EPSG:32618")
SOURCES = {
    "same pixels": GeoBox((77, 101), UTM.affine, "EPSG:32618"),
    "coarser": GeoBox((20, 31), Affine(100, 0, 439_900, 0, -100, 4_160_300), "EPSG:32618"),
    "finer, south up": GeoBox((300, 200), Affine(7, 0, 440_500, 0, 7, 4_158_000), "EPSG:32618"),
    "turned": GeoBox((90, 90), Affine(25, 9, 439_000, 8, -26, 4_160_100), "EPSG:32618"),
    "degrees": GeoBox((60, 70), Affine(5e-4, 0, -75.68, 0, -4e-4, 37.585), "EPSG:4326"),
    "far zone": GeoBox((90, 80), Affine(35, 0, 971_000, 0, -35, 4_171_000), "EPSG:32617"),
}
ALL = Window(0, 0, 77, 101)


@pytest.mark.parametrize("name", SOURCES)
def test_every_centre_lies_in_the_pixel_it_is_given(name: str) -> None:
    """PROJ, asked for each centre, agrees wherever it is not within the stated error of an edge."""
    source = SOURCES[name]
    rows, cols = np.broadcast_arrays(*Placing(UTM, source).indices(ALL))
    assert rows.shape == ALL.shape
    y, x = np.mgrid[0:77, 0:101] + 0.5
    a, b, c, d, e, f = tuple(UTM.affine)[:6]
    move = Transformer.from_crs(str(UTM.crs), str(source.crs), always_xy=True)
    east, north = move.transform(a * x + b * y + c, d * x + e * y + f)
    a, b, c, d, e, f = tuple(~source.affine)[:6]
    col, row = a * east + b * north + c, d * east + e * north + f
    compared = 0
    for index, position, count in ((rows, row, source.shape[0]), (cols, col, source.shape[1])):
        clear = np.abs(position - np.rint(position)) > BENT + 1e-3
        inside = (position >= 0) & (position < count)
        expected = np.where(inside, np.floor(position), -1)
        np.testing.assert_array_equal(index[clear], expected[clear])
        compared += clear.sum()
    assert compared > 0.8 * rows.size
    assert ((rows >= 0) & (cols >= 0)).any()


@given(
    st.sampled_from(sorted(SOURCES)),
    st.integers(0, 76), st.integers(0, 100), st.integers(1, 60), st.integers(1, 60),
)  # fmt: skip
def test_a_window_gets_what_the_whole_gets(
    name: str, top: int, left: int, height: int, width: int
) -> None:
    """However the map is cut, a pixel has one answer."""
    window = Window(top, left, min(top + height, 77), min(left + width, 101))
    placing = Placing(UTM, SOURCES[name])
    for part, whole in zip(placing.indices(window), placing.indices(ALL), strict=True):
        np.testing.assert_array_equal(
            np.broadcast_to(part, window.shape), np.broadcast_to(whole, ALL.shape)[window.slices()]
        )


def test_a_bent_cell_is_worked_out_exactly() -> None:
    """Pixels of 20 km, where a lattice would be off by many: PROJ pixel by pixel, exactly."""
    target = GeoBox((40, 50), Affine(20_000, 0, 0, 0, -20_000, 7_000_000), "EPSG:32633")
    source = GeoBox((400, 600), Affine(0.1, 0, -20, 0, -0.1, 70), "EPSG:4326")
    rows, cols = Placing(target, source).indices(Window(0, 0, 40, 50))
    move = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    for y, x in ((0, 0), (5, 44), (21, 13), (39, 49)):
        lon, lat = move.transform((x + 0.5) * 20_000, 7_000_000 - (y + 0.5) * 20_000)
        assert (rows[y, x], cols[y, x]) == (int((70 - lat) * 10), int((lon + 20) * 10))


@pytest.mark.parametrize("side", [500, 2_000, 5_000])
def test_a_slightly_bent_cell_is_within_its_tolerance(side: int) -> None:
    """Only a centre within 0.03 pixels of an edge may be given to the pixel beyond it."""
    target = GeoBox((70, 90), Affine(side, 0, 2e5, 0, -side, 7_000_000), "EPSG:32633")
    degrees = side / 1e5
    shape = (round(40 / degrees), round(60 / degrees))
    source = GeoBox(shape, Affine(degrees, 0, -20, 0, -degrees, 75), "EPSG:4326")
    found = Placing(target, source).indices(Window(0, 0, 70, 90))
    x, y = np.meshgrid(2e5 + side * (np.arange(90) + 0.5), 7e6 - side * (np.arange(70) + 0.5))
    lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(x, y)
    for index, exact in zip(found, ((75 - lat) / degrees, (lon + 20) / degrees), strict=True):
        clear = np.abs(exact - np.rint(exact)) > 0.03
        np.testing.assert_array_equal(index[clear], np.floor(exact)[clear])


def test_a_centre_on_an_edge_goes_right_and_down() -> None:
    """Pixels twice as large: every centre lies on four; rounding does not choose."""
    coarse = GeoBox((3, 4), Affine(0.2, 0, 10.1, 0, -0.2, 50.3), None)
    fine = GeoBox((6, 8), Affine(0.1, 0, 10.1, 0, -0.1, 50.3), None)
    rows, cols = Placing(coarse, fine).indices(Window(0, 0, 3, 4))
    assert rows.ravel().tolist() == [1, 3, 5]
    assert cols.ravel().tolist() == [1, 3, 5, 7]
