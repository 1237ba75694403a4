"""Polygon files: what is written reads back, in the map's CRS, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from tilemap.errors import StoreError
from tilemap.stores.polygons import LAYER, SCHEMA, write_polygons
from tilemap.stores.vectors import read_features

SHAPE = (23, 41)
NORTH_UP = Affine(20, 0, 3e5, 0, -30, 4.2e6)
FRAME = shapely.Polygon(
    [(2, 1), (2, 9), (17, 9), (17, 1), (2, 1)], [[(4, 3), (8, 3), (8, 5), (4, 5), (4, 3)]]
)
STEP = shapely.Polygon([(30, 11), (30, 20), (39, 20), (39, 15), (34, 15), (34, 11), (30, 11)])
COLUMNS: dict[str, list[Any]] = {
    "id": [43, 481], "from": ["forest", "water"], "to": ["built-up", "forêt; sèche"],
    "code": [7, 224], "date": ["1985-07-01", "2020-02-29"],
    "earliest": ["1965-01-02", "2020-02-29"], "latest": ["1990-07-01", "2020-02-29"],
    "area_ha": [6.72, float("nan")], "pixels": [112, 65], "p_change": [97.25, 50.0],
    "provisional": [0.5, 1.0], "sliver": [0.0, 0.25],
}  # fmt: skip


def _geobox(affine: Affine = NORTH_UP, crs: str | None = "EPSG:32633") -> GeoBox:
    return GeoBox(SHAPE, affine, crs)


def _write(path: Path, geobox: GeoBox) -> None:
    write_polygons(path, [FRAME, STEP], COLUMNS, geobox)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    """Geometries on the ground, every attribute in its type, in the order given."""
    path = tmp_path / "changes.gpkg"
    _write(path, _geobox())
    meta, _, shapes, values = pyogrio.raw.read(path)
    assert meta["crs"] == "EPSG:32633"
    assert meta["geometry_type"] == "Polygon"
    assert list(meta["fields"]) == list(COLUMNS) == list(SCHEMA)
    first, second = shapely.from_wkb(shapes)
    assert first.exterior.coords[0] == (3e5 + 40, 4.2e6 - 30)
    assert second.bounds == (3e5 + 600, 4.2e6 - 600, 3e5 + 780, 4.2e6 - 330)
    found = dict(zip(COLUMNS, values, strict=True))
    for name, want in COLUMNS.items():
        assert str(found[name].dtype) == SCHEMA[name]
        if name == "area_ha":
            assert found[name][0] == 6.72
            assert np.isnan(found[name][1])
        else:
            assert [str(v) for v in found[name]] == [str(v) for v in want]
    assert pyogrio.list_layers(path).tolist() == [[LAYER, "Polygon"]]
    assert [file.name for file in tmp_path.iterdir()] == ["changes.gpkg"]


def test_our_own_reader_opens_it(tmp_path: Path) -> None:
    """As polygons to train on, or to sample in."""
    _write(tmp_path / "changes.gpkg", _geobox())
    features = read_features(tmp_path / "changes.gpkg")
    assert features.column("to") == ("built-up", "forêt; sèche")
    assert features.crs == _geobox().crs


@pytest.mark.parametrize(
    "affine",
    [
        NORTH_UP,
        Affine(20, 0, 3e5, 0, 30, 4.2e6),  # rows run to the north
        Affine(16, 9, 3e5, 12, -25, 4.2e6),  # turned
        Affine(-16, 9, 3e5, 12, 25, 4.2e6),
    ],
)
def test_any_geotransform(tmp_path: Path, affine: Affine) -> None:
    """Burnt back on the grid they cover their pixels; outer rings run against the clock there."""
    path = tmp_path / "changes.gpkg"
    _write(path, _geobox(affine))
    shapes = shapely.from_wkb(pyogrio.raw.read(path)[2])
    burnt = rasterize([(s, i + 1) for i, s in enumerate(shapes)], out_shape=SHAPE, transform=affine)
    want = np.zeros(SHAPE, np.uint8)
    want[1:9, 2:17] = 1
    want[3:5, 4:8] = 0
    want[11:20, 30:39] = 2
    want[11:15, 34:39] = 0
    assert np.array_equal(burnt, want)
    for shape in shapes:
        assert shape.is_valid
        assert shape.exterior.is_ccw
        assert not any(hole.is_ccw for hole in shape.interiors)


def test_an_empty_file_has_the_same_layer(tmp_path: Path) -> None:
    """No features, but the attributes in their types, and the CRS."""
    write_polygons(tmp_path / "none.gpkg", [], {name: [] for name in COLUMNS}, _geobox())
    _write(tmp_path / "some.gpkg", _geobox())
    none, some = (pyogrio.read_info(tmp_path / f"{name}.gpkg") for name in ("none", "some"))
    assert none["features"] == 0
    assert none["fields"].tolist() == some["fields"].tolist()
    assert none["dtypes"].tolist() == some["dtypes"].tolist()
    assert none["crs"] == some["crs"]
    assert none["geometry_type"] == some["geometry_type"]


@pytest.mark.parametrize(
    "crs", [None, "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"]
)
def test_a_crs_without_a_number_or_none(tmp_path: Path, crs: str | None) -> None:
    """The sinusoidal one of MODIS stays what it is; without a CRS there is none."""
    _write(tmp_path / "changes.gpkg", _geobox(crs=crs))
    features = read_features(tmp_path / "changes.gpkg")
    assert features.crs == _geobox(crs=crs).crs
    assert len(features.geometries) == 2


def test_equal_polygons_give_equal_bytes(tmp_path: Path) -> None:
    """No clock in the file; and GDAL is left as it was."""
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.gpkg", _geobox())
    assert (tmp_path / "a.gpkg").read_bytes() == (tmp_path / "b.gpkg").read_bytes()
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


def test_attributes_beside_those_of_a_change(tmp_path: Path) -> None:
    """Taken as they are: texts, whole numbers, numbers."""
    columns = {"note": ["a", None], "count": [1, 2], "share": [0.5, 1]}
    write_polygons(tmp_path / "own.gpkg", [FRAME, STEP], columns, _geobox(), layer="own")
    meta, _, _, values = pyogrio.raw.read(tmp_path / "own.gpkg", layer="own")
    assert list(meta["fields"]) == ["note", "count", "share"]
    assert [v.tolist() for v in values] == [["a", None], [1, 2], [0.5, 1.0]]


def test_a_value_for_each_polygon(tmp_path: Path) -> None:
    """Said before anything is written."""
    with pytest.raises(StoreError, match="'id' must have one value for each of 2 polygons"):
        write_polygons(tmp_path / "x.gpkg", [FRAME, STEP], {"id": [1]}, _geobox())
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older file stays, and nothing is left beside it, wherever the writing breaks off."""
    path = tmp_path / "changes.gpkg"
    path.write_bytes(b"of an earlier run")
    wrong = {**COLUMNS, "date": ["1985-07-01", "yesterday"]}
    with pytest.raises(StoreError, match=r"cannot write .*changes\.gpkg"):
        write_polygons(path, [FRAME, STEP], wrong, _geobox())

    def broken(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tilemap.stores.polygons._fsync", broken)
    with pytest.raises(StoreError, match=r"cannot write .*changes\.gpkg: No space left"):
        _write(path, _geobox())
    assert path.read_bytes() == b"of an earlier run"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """An error that names the file."""
    with pytest.raises(StoreError, match=r"cannot write .*gone.*changes\.gpkg"):
        _write(tmp_path / "gone" / "changes.gpkg", _geobox())


def test_what_an_interrupted_run_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """A partial file, and the journal beside it, are replaced."""
    for ending in ("", "-journal"):
        (tmp_path / f"changes.gpkg.partial.gpkg{ending}").write_bytes(b"half")
    _write(tmp_path / "changes.gpkg", _geobox())
    assert [file.name for file in tmp_path.iterdir()] == ["changes.gpkg"]
    assert pyogrio.read_info(tmp_path / "changes.gpkg")["features"] == 2
