"""References on the map's grid: polygons, other grids, values that are no class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.warp import reproject, transform_bounds
from shapely.affinity import rotate
from shapely.geometry import Point
from shapely.geometry import box as rectangle

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.evaluation import reference as module
from tilemap.evaluation.metrics import IGNORE
from tilemap.evaluation.reference import BLOCK, Shapes
from tilemap.evaluation.request import EvaluateSettings, prepare
from tilemap.geometry import Window
from tilemap.stores.mosaic import Handles
from tilemap.testing import write_geotiff

ALL = Window(0, 0, 83, 127)


def read(ground: Any, name: str, window: Window = ALL, **options: Any) -> Any:
    """Class indices that a reference gives on the map's grid."""
    settings = EvaluateSettings(str(ground.map), str(ground.folder / name), **options)
    with Handles() as handles:
        return prepare(settings).reference.read(handles, window)


def indices(stored: Any) -> Any:
    """Class indices of the stored numbers 1, 2 and 5."""
    out = np.full(stored.shape, IGNORE, dtype=np.uint8)
    for index, value in enumerate((1, 2, 5)):
        out[stored == value] = index
    return out


def test_a_raster_on_the_same_grid_comes_as_it_is(ground: Any) -> None:
    """Pixel by pixel, nodata as "no reference"."""
    np.testing.assert_array_equal(read(ground, "reference.tif"), indices(ground.reference))


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:3857", "EPSG:4326"])
def test_a_finer_raster_in_another_crs_gives_its_nearest_pixel(ground: Any, crs: str) -> None:
    """GDAL brings the reference onto pixels a third as large, by nearest; reading brings it back.

    A centre of the map lies at most a sixth of its pixel from the centre of a fine one, so what
    comes back is the reference itself.
    """
    with rasterio.open(ground.folder / "reference.tif") as file:
        size = 10 / 3 / (111_320 if crs == "EPSG:4326" else 1)
        left, bottom, right, top = transform_bounds(file.crs, crs, *file.bounds)
        affine = rasterio.Affine(size, 0, left - size, 0, -size, top + size)
        shape = (1, int((top - bottom) / size) + 3, int((right - left) / size) + 3)
        fine = np.full(shape, 255, dtype=np.uint8)
        reproject(
            file.read(), fine, src_transform=file.transform, src_crs=file.crs,
            dst_transform=affine, dst_crs=crs, src_nodata=255, dst_nodata=255,
        )  # fmt: skip
    path = ground.folder / f"fine-{crs[5:]}.tif"
    write_geotiff(path, fine, crs=crs, transform=affine, nodata=255)
    ground.name_classes(path, {1: "Water", 2: "TREES", 5: "rock"})
    np.testing.assert_array_equal(read(ground, path.name), indices(ground.reference))


def test_a_fine_reference_is_read_in_parts(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little may be read at once, the answer is the same."""
    whole = read(ground, "reference.tif")
    monkeypatch.setattr(module, "_LARGEST_SOURCE", 50)
    np.testing.assert_array_equal(read(ground, "reference.tif"), whole)


def test_polygons_hold_the_pixels_whose_centres_they_hold(ground: Any) -> None:
    """Later ones lie on top; one without a class hides; the rest is no reference."""
    expected = np.full((83, 127), IGNORE, dtype=np.uint8)
    expected[4:30, 3:40] = 0
    expected[10:50, 21:60] = 1  # edges through centres: burnt as GDAL does it, see below
    expected[20:77, 70:118] = 2
    expected[30:40, 80:90] = IGNORE
    asked: list[dict[str, Any]] = [{"column": "kind"}, {"column": "code", "ignore": ("9",)}]
    for options in asked:
        got = read(ground, "polygons.geojson", **options)
        inner = np.ones_like(got, dtype=bool)
        for edge in (np.s_[10:11, :], np.s_[50:51, :], np.s_[77:78, :]):
            inner[edge] = False
        inner[:, 20:21] = inner[:, 118:119] = False
        np.testing.assert_array_equal(got[inner], expected[inner])


def test_polygons_of_one_class_and_what_is_around_them(ground: Any) -> None:
    """All features are of the class that is named, the rest of the background or of none."""
    by_column = read(ground, "polygons.geojson", column="code", ignore=("9",))
    covered = read(ground, "polygons.geojson", polygon_class="trees")
    assert set(np.unique(covered)) == {1, IGNORE}
    assert (covered[by_column != IGNORE] == 1).all()
    around = read(ground, "polygons.geojson", polygon_class="trees", background="rock")
    np.testing.assert_array_equal(around == 1, covered == 1)
    assert (around[covered == IGNORE] == 2).all()
    with pytest.raises(SceneError, match="got grass"):
        read(ground, "polygons.geojson", polygon_class="trees", background="grass")


def test_a_reference_counts_inside_its_area_only(ground: Any, tmp_path: Path) -> None:
    """Of rasters and of polygons; in whatever window."""
    boxes = [ground.box(5.2, 10.2, 60.2, 40.2), ground.box(100.2, 50.2, 120.2, 80.2)]
    area = ground.write_geojson(tmp_path / "area.geojson", boxes)
    inside = np.zeros((83, 127), dtype=bool)
    inside[10:40, 5:60] = inside[50:80, 100:120] = True
    for name, options in (
        ("reference.tif", {}),
        ("polygons.geojson", {"polygon_class": "trees", "background": "rock"}),
    ):
        whole = read(ground, name, **options)
        got = read(ground, name, area=str(area), **options)
        np.testing.assert_array_equal(got, np.where(inside, whole, IGNORE))
        window = Window(20, 30, 70, 110)
        part = read(ground, name, window, area=str(area), **options)
        np.testing.assert_array_equal(part, got[20:70, 30:110])


def test_polygons_in_degrees_come_onto_the_map(ground: Any) -> None:
    """The same features in another CRS burn the same pixels, but for their edges."""
    import pyogrio
    import shapely
    from pyproj import Transformer

    meta, _, blobs, _ = pyogrio.raw.read(ground.folder / "polygons.geojson")
    move = Transformer.from_crs(meta["crs"], "EPSG:4326", always_xy=True).transform
    shapes = shapely.transform(shapely.from_wkb(blobs), move, interleaved=False)
    codes = (1, 2, 5, 9, 77)
    path = ground.write_geojson(
        ground.folder / "degrees.geojson",
        [
            {"type": "Feature", "properties": {"code": code}, "geometry": shape.__geo_interface__}
            for code, shape in zip(codes, shapes, strict=True)
        ],
        crs=4326,
    )
    options: dict[str, Any] = {"column": "code", "ignore": ("9",)}
    there = read(ground, path.name, **options)
    here = read(ground, "polygons.geojson", **options)
    assert (there != here).mean() < 0.03
    assert (there[12:28, 22:38] == here[12:28, 22:38]).all()


@given(st.integers(0, 999), st.integers(0, 600), st.integers(0, 900), st.integers(1, 300))
def test_polygons_burn_alike_in_every_window(seed: int, top: int, left: int, side: int) -> None:
    """Edges that run through pixel centres included: blocks lie still, whatever is asked."""
    rng = np.random.default_rng(seed)
    geobox = GeoBox((BLOCK + 120, 2 * BLOCK + 7), rasterio.Affine(0.3, 0, 7.1, 0, -0.3, 99), None)
    shapes = []
    for _ in range(12):
        row, col = rng.integers(0, geobox.shape) + 0.5  # corners on centres
        x, y = 7.1 + 0.3 * col, 99 - 0.3 * row
        wide = 0.3 * rng.integers(1, 300)
        shapes.append(rotate(rectangle(x, y - wide, x + wide, y), rng.choice([0, 45, 33])))
    burner = Shapes(geobox, shapes, range(1000, 1012))
    whole = burner.burn(Window(0, 0, *geobox.shape))
    window = Window(top, left, min(top + side, geobox.shape[0]), min(left + side, geobox.shape[1]))
    np.testing.assert_array_equal(burner.burn(window), whole[window.slices()])


def test_points_are_references_too() -> None:
    """A point counts for the pixel it lies in."""
    geobox = GeoBox((5, 6), rasterio.Affine(10, 0, 0, 0, -10, 50), None)
    burnt = Shapes(geobox, [Point(33, 21)], [4]).burn(Window(0, 0, 5, 6))
    assert np.argwhere(burnt == 4).tolist() == [[2, 3]]


def test_values_that_are_no_class_are_named(ground: Any) -> None:
    """In a raster and in a vector; what lies beyond the map does not matter."""
    bad = ground.reference.copy()
    bad[40, 40], bad[41, 40] = 7, 77
    write_geotiff(ground.folder / "bad.tif", bad[None], nodata=255)
    with pytest.raises(SceneError, match=r"\(water, trees, rock\), got 7, 77; .*`ignore`"):
        read(ground, "bad.tif")
    assert read(ground, "bad.tif", ignore=("7", "77"))[40, 40] == IGNORE
    with pytest.raises(SceneError, match="got 9;"):
        read(ground, "polygons.geojson", column="code")
    with pytest.raises(SceneError, match="must have an attribute 'sort', it has kind, code"):
        read(ground, "polygons.geojson", column="sort")


def test_a_reference_that_lies_elsewhere(ground: Any, tmp_path: Path) -> None:
    """No overlap, or a CRS on one side only: refused before a pixel is read."""
    pixels = np.ones((1, 5, 5), dtype=np.uint8)
    far = rasterio.Affine(10, 0, 900_000, 0, -10, 100_000)
    for name, crs, says in (
        ("far.tif", "EPSG:32618", "must overlap"),
        ("plain.tif", None, "both have a CRS or none"),
    ):
        write_geotiff(tmp_path / name, pixels, crs=crs, transform=far)
        with pytest.raises(SceneMismatchError, match=says):
            prepare(EvaluateSettings(str(ground.map), str(tmp_path / name)))
    path = ground.write_geojson(tmp_path / "far.geojson", [ground.box(900, 0, 950, 9, code=1)])
    with pytest.raises(SceneMismatchError, match="must overlap"):
        prepare(EvaluateSettings(str(ground.map), str(path), column="code"))
    write_geotiff(tmp_path / "two.tif", np.ones((2, 83, 127), dtype=np.uint8))
    with pytest.raises(SceneError, match="one band of classes"):
        prepare(EvaluateSettings(str(ground.map), str(tmp_path / "two.tif")))
