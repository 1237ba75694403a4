from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
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
