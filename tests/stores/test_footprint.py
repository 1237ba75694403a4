"""Outlines in degrees: against closed forms, over the antimeridian, around a pole."""

from __future__ import annotations

import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform
from shapely.geometry import Point, Polygon, shape

from tilemap.stores.footprint import footprint

UTM = GeoBox((1001, 700), Affine(30, 0, 535000, 0, -30, 9_090_000), "EPSG:32718")


def test_degrees_are_kept() -> None:
    """A grid in degrees is its own outline, counterclockwise, exact at the corners."""
    found = footprint(GeoBox((20, 30), Affine(0.1, 0, -75.7, 0, -0.1, 37.8), "EPSG:4326"))
    assert found.bbox == (-75.7, 35.8, -72.7, 37.8)
    assert found.geometry is not None
    assert found.geometry["type"] == "Polygon"
    ring = shape(found.geometry).exterior
    assert ring.is_ccw
    assert ring.is_ring
    assert shape(found.geometry).area == pytest.approx(6)


@pytest.mark.parametrize("turned", [False, True])
def test_projected(turned: bool) -> None:
    """Corners and edges lie where the CRS says, whichever way the rows run."""
    box = UTM
    if turned:
        box = GeoBox((700, 1001), Affine(0, 30, 535000, -30, 0, 9_090_000), "EPSG:32718")
    found = footprint(box)
    assert found.geometry is not None
    outline = shape(found.geometry)
    assert outline.exterior.is_ccw
    dense = shapely.segmentize(box.extent.geom, 100).exterior.coords
    edge = Polygon(
        zip(*transform("EPSG:32718", "EPSG:4326", *zip(*dense, strict=True)), strict=True)
    )
    assert outline.symmetric_difference(edge).area < 1e-5 * edge.area
    assert found.bbox == pytest.approx(edge.bounds, abs=1e-5)


def test_antimeridian() -> None:
    """Cut in two; the western edge is the larger number."""
    found = footprint(GeoBox((1000, 900), Affine(100, 0, 780000, 0, -100, 7_900_000), "EPSG:32760"))
    assert found.geometry is not None
    assert found.geometry["type"] == "MultiPolygon"
    west, _, east, _ = found.bbox or (0, 0, 0, 0)
    assert 179 < west < 180
    assert -180 < east < -179
    parts = shape(found.geometry)
    assert parts.is_valid
    assert parts.bounds[0] == -180
    assert parts.bounds[2] == 180
    box = (east + 360 - west) * (parts.bounds[3] - parts.bounds[1])
    assert 0.8 * box < parts.area < box


def test_longitudes_to_360() -> None:
    """A grid that counts on beyond 180 is the same place."""
    found = footprint(GeoBox((10, 40), Affine(1, 0, 160, 0, -1, 5), "EPSG:4326"))
    assert found.bbox == (160, -5, -160, 5)
    whole = footprint(GeoBox((10, 360), Affine(1, 0, 0, 0, -1, 5), "EPSG:4326"))
    assert whole.bbox == (-180, -5, 180, 5)
    east = footprint(GeoBox((10, 40), Affine(1, 0, 200, 0, -1, 5), "EPSG:4326"))
    assert east.bbox == (-160, -5, -120, 5)
    assert east.geometry is not None
    assert east.geometry["type"] == "Polygon"


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_pole_inside(crs: str, pole: float) -> None:
    """All longitudes, from the outline to the pole."""
    found = footprint(GeoBox((60, 50), Affine(1e5, 0, -2.6e6, 0, -1e5, 2.9e6), crs))
    assert found.bbox is not None
    assert (found.bbox[0], found.bbox[2]) == (-180, 180)
    assert pole in found.bbox
    assert shape(found.geometry).covers(Point(12, pole * 0.999))


def test_sinusoidal_without_a_code() -> None:
    """MODIS: a sphere, no EPSG."""
    crs = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
    found = footprint(GeoBox((100, 80), Affine(231.656, 0, -6e6, 0, -231.656, -1.3e6), crs))
    assert found.bbox is not None
    assert found.bbox[1] == pytest.approx(-1.3e6 / 111194.9 - 100 * 231.656 / 111194.9, abs=0.01)


def test_nothing_is_told() -> None:
    """No CRS; corners that lie nowhere on Earth."""
    assert footprint(GeoBox((3, 4), Affine.identity(), None)).geometry is None
    nowhere = GeoBox((3, 4), Affine(1e7, 0, -4e7, 0, -1e7, 4e7), "ESRI:54009")
    assert footprint(nowhere).bbox is None


@pytest.mark.parametrize(
    "crs",
    [
        'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]',
        "IAU_2015:30110",  # the Moon
        "IAU_2015:49900",  # Mars
    ],
)
def test_what_does_not_lie_on_earth(crs: str) -> None:
    """A building site and other globes have no outline in degrees of WGS 84."""
    found = footprint(GeoBox((20, 30), Affine(10, 0, 100, 0, -10, 500), crs))
    assert (found.geometry, found.bbox) == (None, None)
