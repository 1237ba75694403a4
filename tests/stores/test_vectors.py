from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.stores.vectors import burn, is_vector, onto, read_features

GEOBOX = GeoBox((20, 30), Affine(10, 0, 500_000, 0, -10, 4_000_000), "EPSG:32631")


def write(path: Path, *features: tuple[Any, dict[str, Any]]) -> Path:
    """A GeoJSON file in longitude and latitude."""
    rows = [
        {
            "type": "Feature",
            "properties": values,
            "geometry": geometry and shapely.geometry.mapping(geometry),
        }
        for geometry, values in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    return path


def test_features_and_nulls(tmp_path: Path) -> None:
    """Null and empty geometries are left out and counted, their attributes with them."""
    path = write(
        tmp_path / "a.geojson",
        (shapely.box(0, 0, 1, 1), {"kind": "a", "n": 1}),
        (None, {"kind": "b", "n": 2}),
        (shapely.box(2, 2, 3, 3), {"kind": "c", "n": 3}),
    )
    features = read_features(path)
    assert features.nulls == 1
    assert features.column("kind") == ("a", "c")
    assert features.column("n") == (1, 3)
    assert features.crs == "EPSG:4326"
    with pytest.raises(SceneError, match="must have an attribute 'name', it has kind, n"):
        features.column("name")


def test_real_layers(data: Path) -> None:
    """The Flanders files: a layer of styles besides the polygons, and one null geometry."""
    path = data / "labels" / "s2_flanders_fields_locations.gpkg"
    with pytest.raises(SceneError, match="got 'none'"):
        read_features(path, "none")
    locations = read_features(path, "locations")
    assert len(locations.geometries) + locations.nulls == 16
    fields = read_features(data / "labels" / "s2_flanders_fields_polygons.gpkg")
    assert (len(fields.geometries), fields.nulls) == (198, 1)


def test_files_that_are_none(tmp_path: Path) -> None:
    """A file that is not there, and one that holds something else, are errors of one line."""
    with pytest.raises(SceneError, match="there is no such file"):
        read_features(tmp_path / "none.gpkg")
    (tmp_path / "bad.gpkg").write_text("no")
    with pytest.raises(SceneError, match="it must be GeoPackage"):
        read_features(tmp_path / "bad.gpkg")
    (tmp_path / "bad.gpkg").write_bytes(b"SQLite format 3\0")
    with pytest.raises(SceneError, match="cannot be read as features"):
        read_features(tmp_path / "bad.gpkg")
    assert is_vector("a.GPKG")
    assert not is_vector("a.tif")


def test_onto_and_back(tmp_path: Path) -> None:
    """A square of the grid given in longitude and latitude comes back to within a millimetre."""
    square = shapely.box(500_050, 3_999_850, 500_150, 3_999_950)
    path = write(tmp_path / "a.geojson", (shapely.box(3.0, 36.1, 3.01, 36.2), {"v": 1}))
    lonlat = onto(read_features(path), GEOBOX)
    assert lonlat.crs == "EPSG:32631"
    features = read_features(path)
    back = GeoBox((10, 10), Affine(0.1, 0, 0, 0, -0.1, 60), "EPSG:4326")
    moved = onto(type(features)("m", GEOBOX.crs, (square,), {}, 0), back)
    again = onto(moved, GEOBOX).geometries[0]
    np.testing.assert_allclose(again.bounds, square.bounds, atol=1e-3)


def test_burn_takes_pixel_centres_and_windows_agree() -> None:
    """Pixels whose centre is inside, later geometries on top; a window is a cut of the whole."""
    shapes = [
        shapely.box(500_046, 3_999_846, 500_154, 3_999_954),
        shapely.Point(500_105, 3_999_895).buffer(23),
    ]
    whole = burn(shapes, (1, 2), GEOBOX)
    x, y = np.meshgrid(500_005 + 10 * np.arange(30), 3_999_995 - 10 * np.arange(20))
    expected = np.full((20, 30), 255)
    for shape, value in zip(shapes, (1, 2), strict=True):
        expected[shapely.contains_xy(shape, x, y)] = value
    np.testing.assert_array_equal(whole, expected)
    window = Window(3, 5, 17, 21)
    np.testing.assert_array_equal(burn(shapes, (1, 2), GEOBOX, window), whole[3:17, 5:21])
    assert (burn((), (), GEOBOX, window, fill=7) == 7).all()


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Requests to a host of this machine, whose address is the first entry."""
    found: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.append(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


POINT = '{"type": "Point", "coordinates": [1, 2]}'
COLLECTION = (
    '{"type": "FeatureCollection", %s, "features": [{"type": "Feature", '
    '"properties": {"a": "gdal_streamed_alg"}, "geometry": %s}]}'
)
ELSEWHERE = {
    "OGR VRT": '<OGRVRTDataSource><OGRVRTLayer name="l"><SrcDataSource>/vsicurl/{}/a.gpkg'
    "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>",
    "pipeline": '{"type": "gdal_streamed_alg", "command_line": '
    '"gdal vector pipeline ! read /vsicurl/{}/a.fgb ! write streamed_dataset"}',
    "CRS by link": COLLECTION
    % ('"crs": {"type": "link", "properties": {"href": "{}/crs", "type": "proj4"}}', POINT),
    "CRS by URL": COLLECTION % ('"crs": {"type": "URL", "properties": {"url": "{}/crs"}}', POINT),
    "JSON-FG": COLLECTION % ('"coordRefSys": "{}/crs"', POINT),
    "GML": '<a xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="x {}/x"'
    ' xmlns:gml="http://www.opengis.net/gml"/>',
    "WFS": "<OGRWFSDataSource><URL>{}/wfs</URL></OGRWFSDataSource>",
    "text": "id,WKT\n1,POINT(1 2)\n{}\n",
    "list": '["{}"]',
}


@pytest.mark.parametrize("suffix", [".gpkg", ".json", ".shp"])
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_vector_file_leads_nowhere(
    tmp_path: Path, asked: list[str], suffix: str, kind: str
) -> None:
    """Another format by an allowed name, and GeoJSON that names an address, are refused unasked."""
    path = tmp_path / f"labels{suffix}"
    path.write_text(ELSEWHERE[kind].replace("{}", asked[0]))
    with pytest.raises(SceneError, match=r"must be Geo|must give its CRS by name"):
        read_features(path)
    assert len(asked) == 1


@pytest.mark.filterwarnings("ignore:GPKG")
def test_a_database_of_another_kind(tmp_path: Path) -> None:
    """An SQLite file that is no GeoPackage is not read, whatever its tables are made of."""
    path = tmp_path / "a.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE a (b)")
    for name in ("a.sqlite", "a.gpkg"):
        with pytest.raises(SceneError, match=r"must be GeoPackage|cannot be read as features"):
            read_features(path.rename(tmp_path / name))
        path = tmp_path / name


@pytest.mark.parametrize("driver", ["GPKG", "ESRI Shapefile", "FlatGeobuf", "GeoJSON"])
def test_formats_that_are_read(tmp_path: Path, driver: str) -> None:
    """Each format gives its geometries, numbers and CRS, also without the usual name."""
    suffix = {"GPKG": "gpkg", "ESRI Shapefile": "shp", "FlatGeobuf": "fgb", "GeoJSON": "json"}
    path = tmp_path / f"fields.{suffix[driver]}"
    shapes = [shapely.box(500_000, 0, 500_010, 10), shapely.box(0, 0, 1, 2)]
    pyogrio.raw.write(
        path, shapely.to_wkb(shapes), [np.array([4, 5])], ["n"], geometry_type="Polygon",
        crs="EPSG:32631", driver=driver,
    )  # fmt: skip
    features = read_features(path, "fields")
    assert sorted(g.area for g in features.geometries) == [2, 100]
    assert sorted(features.column("n")) == [4, 5]
    assert features.crs == "EPSG:32631"


@pytest.mark.parametrize(
    "text",
    [
        POINT,
        '{"type": "Feature", "properties": null, "geometry": ' + POINT + "}",
        "\ufeff \n" + COLLECTION % ('"stac": "https://example.org/"', POINT),
        COLLECTION % ('"crs": {"type": "name", "properties": {"name": "EPSG:4326"}}', POINT),
    ],
)
def test_geojson_of_every_shape(tmp_path: Path, text: str) -> None:
    """A geometry, a feature and a collection are read, with and without a name of the CRS."""
    (tmp_path / "a.geojson").write_text(text, encoding="utf-8")
    features = read_features(tmp_path / "a.geojson", "a")
    assert features.geometries == (shapely.Point(1, 2),)
    assert features.crs == "EPSG:4326"


def _package(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """A GeoPackage of two squares; the stored geometry of the second is changed."""
    squares = [shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]
    blobs = np.array([shapely.to_wkb(square) for square in squares], object)
    columns = [np.array([1, 2])]
    pyogrio.raw.write(path, blobs, columns, ["n"], crs="EPSG:4326", geometry_type="Polygon")
    with contextlib.closing(sqlite3.connect(path)) as base, base:
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            base.execute(f'DROP TRIGGER "{name}"')
        (blob,) = base.execute(f"SELECT geom FROM {path.stem} WHERE n = 2").fetchone()
        base.execute(f"UPDATE {path.stem} SET geom = ? WHERE n = 2", (change(blob),))
    return path


@pytest.mark.parametrize("end", [(float("nan"), 2.0), (float("inf"), 2.0), (9.0, 9.0)])
def test_geometry_that_is_damaged(tmp_path: Path, end: tuple[float, float]) -> None:
    """Refused with the number of the feature: no number, an infinite one, an open ring."""
    path = _package(tmp_path / "a.gpkg", lambda blob: blob[:-16] + struct.pack("<2d", *end))
    with pytest.raises(SceneError, match=r"feature 2 of a\.gpkg"):
        read_features(path)


@pytest.mark.parametrize(
    "change", [lambda b: b[:40], lambda b: b"GP", lambda _: bytes(range(200))], ids=repr
)
def test_geometry_that_is_none(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """What GDAL cannot decode counts as a feature without geometry."""
    features = read_features(_package(tmp_path / "a.gpkg", change))
    assert (features.column("n"), features.nulls) == ((1,), 1)


@pytest.mark.parametrize("size", [50, 100, 5000, 60_000])
def test_truncated_package(tmp_path: Path, size: int) -> None:
    """Refused in a line."""
    path = _package(tmp_path / "a.gpkg", bytes)
    os.truncate(path, size)
    with pytest.raises(SceneError, match=r"a\.gpkg cannot be read"):
        read_features(path)


@pytest.mark.parametrize("number", [math.nan, 1e400])
def test_geojson_of_no_numbers(tmp_path: Path, number: float) -> None:
    """Coordinates that are not finite are refused."""
    geometry = {"type": "Polygon", "coordinates": [[[0, 0], [number, 0], [1, 1], [0, 0]]]}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(geometry))
    with pytest.raises(SceneError, match="coordinates must be finite, those of feature 1"):
        read_features(path)


@pytest.mark.parametrize("name", ["EPSG:999999", "urn:ogc:def:crs:EPSG::5800x", 5, None, ""])
def test_geojson_of_an_unknown_crs(tmp_path: Path, name: object) -> None:
    """Refused; GDAL would read it as longitude and latitude without a word."""
    path = write(tmp_path / "a.geojson", (shapely.box(0, 0, 1, 1), {}))
    content = json.loads(path.read_text())
    crs = {"type": "name", "properties": {"name": name}}
    path.write_text(json.dumps({**content, "crs": crs}))
    with pytest.raises(SceneError, match="must give a known CRS"):
        read_features(path)


def test_a_crs_that_no_library_has(tmp_path: Path) -> None:
    """An engineering CRS is refused by its name."""
    path = write(tmp_path / "a.geojson", (shapely.box(0, 0, 1, 1), {}))
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::5800"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "crs": crs}))
    with pytest.raises(SceneError, match="CRS"):
        read_features(path)
