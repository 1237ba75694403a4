"""A random sample of a map: where its points lie, and how many there are."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.area import CellArea
from tilemap.changing.profiles import change_profiles
from tilemap.errors import OutputError, SceneError, UsageError
from tilemap.evaluation import census as census_module
from tilemap.evaluation import sampling
from tilemap.evaluation.census import census, open_map
from tilemap.evaluation.sampling import Plan, draw, sample_map
from tilemap.geometry import Window
from tilemap.models.card import ClassInfo
from tilemap.stores.cog import partial_path, publish, write_cog
from tilemap.testing import write_geotiff

NAMES = {1: "water", 2: "forest", 7: "town"}
Bytes = npt.NDArray[np.uint8]


def classes_of(shape: tuple[int, int] = (83, 131), seed: int = 3) -> Bytes:
    """Much forest, some water, little town in one corner, gaps."""
    random = np.random.default_rng(seed)
    pixels = np.where(random.random(shape) < 0.2, 1, 2).astype(np.uint8)
    pixels[-9:, -30:] = 7
    pixels[random.random(shape) < 0.1] = 255
    return pixels


def write_map(path: Path, pixels: Bytes, **options: object) -> Path:
    """A class map with names, nodata 255."""
    write_geotiff(path, pixels[None], nodata=255, **options)  # type: ignore[arg-type]
    with rasterio.open(path, "r+") as file:
        file.update_tags(CLASS_255="nothing", **{f"CLASS_{v}": name for v, name in NAMES.items()})
    return path


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    """The map of ``classes_of``."""
    return write_map(tmp_path / "landcover.tif", classes_of())


def places(path: Path, plan: Plan) -> set[tuple[int, int, int]]:
    """Stratum, row and column of every unit drawn."""
    opened = open_map(path)
    drawn = draw(opened, census(opened), plan)
    return set(zip(drawn.stratum.tolist(), drawn.row.tolist(), drawn.col.tolist(), strict=True))


# --- the census --------------------------------------------------------------------------------


@pytest.mark.parametrize("core", [11, 64, 2048])
@pytest.mark.parametrize(
    "where",
    [{}, {"crs": "EPSG:4326", "transform": Affine(0.1, 0, 20, 0, -0.5, 70)}],
    ids=["utm", "degrees"],
)
def test_counts_and_areas(
    tmp_path: Path, core: int, where: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the whole map at once, however it is cut; in degrees a row has its own area."""
    monkeypatch.setattr(census_module, "CORE", core)
    pixels = classes_of()
    opened = open_map(write_map(tmp_path / "map.tif", pixels, **where))
    counted = census(opened)
    window = Window(0, 0, *pixels.shape)
    area = np.broadcast_to(CellArea(opened.geobox).cell_km2(window), pixels.shape) * 100
    assert [(s.value, s.name) for s in counted.strata] == list(NAMES.items())
    assert [s.pixels for s in counted.strata] == [(pixels == v).sum() for v in NAMES]
    expected = [area[pixels == value].sum() for value in NAMES]
    np.testing.assert_allclose([s.area_ha for s in counted.strata], expected, rtol=1e-12)
    assert np.array_equal(counted.in_row, [(pixels == v).sum(axis=1) for v in NAMES])


def test_a_map_without_names_or_place(tmp_path: Path) -> None:
    """Numbers are names enough; areas are not known."""
    path = write_geotiff(tmp_path / "map.tif", classes_of()[None], nodata=255, crs=None)
    strata = census(open_map(path)).strata
    assert [s.name for s in strata] == ["class 1", "class 2", "class 7"]
    assert all(s.area_ha != s.area_ha for s in strata)


def test_pixels_by_their_place(class_map: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tile they lie in; -1 where there is nothing, beyond the edges too."""
    monkeypatch.setattr(census_module, "CORE", 20)
    pixels = classes_of().astype(np.int64)
    row, col = np.random.default_rng(2).integers(-9, 140, (2, 4000))
    inside = (row >= 0) & (row < 83) & (col >= 0) & (col < 131)
    expected = np.full(4000, -1)
    expected[inside] = pixels[row[inside], col[inside]]
    expected[expected == 255] = -1
    assert np.array_equal(open_map(class_map).at(row, col), expected)


def test_what_is_no_class_map(tmp_path: Path) -> None:
    """Two bands, other numbers, nothing observed."""
    two = write_geotiff(tmp_path / "two.tif", np.ones((2, 5, 6), dtype=np.uint8))
    wide = write_geotiff(tmp_path / "wide.tif", np.ones((1, 5, 6), dtype=np.uint16))
    with pytest.raises(SceneError, match="has uint8, uint8"):
        open_map(two)
    with pytest.raises(SceneError, match="one band of uint8"):
        open_map(wide)
    empty = write_map(tmp_path / "empty.tif", np.full((5, 6), 255, dtype=np.uint8))
    with pytest.raises(SceneError, match="must have observed pixels"):
        census(open_map(empty))


# --- the draw ----------------------------------------------------------------------------------


@pytest.mark.parametrize("core", [7, 50, 2048])
def test_ranks_in_raster_order(class_map: Path, core: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixels with the drawn ranks among those of their class, found in the whole map."""
    monkeypatch.setattr(census_module, "CORE", core)
    monkeypatch.setattr(sampling, "CORE", core)
    flat, expected = classes_of().ravel(), set()
    for number, value in enumerate(NAMES):
        there = np.flatnonzero(flat == value)
        ranks = np.random.default_rng([5, value]).choice(there.size, 40, replace=False)
        expected |= {(number, *divmod(int(place), 131)) for place in there[ranks]}
    assert places(class_map, Plan(per_stratum=40, seed=5)) == expected


def test_a_seed_draws_one_sample(class_map: Path) -> None:
    """And another seed another one; in an order that mixes the strata."""
    opened = open_map(class_map)
    counted = census(opened)
    one, two, other = (draw(opened, counted, Plan(30, seed=s)) for s in (4, 4, 5))
    assert np.array_equal(one.row, two.row)
    assert np.array_equal(one.col, two.col)
    assert set(zip(one.row, one.col, strict=True)) != set(zip(other.row, other.col, strict=True))
    assert np.count_nonzero(np.diff(one.stratum)) > 30


def test_every_pixel_has_the_same_chance(tmp_path: Path) -> None:
    """Over 600 seeds each is drawn about as often, first and last ones too (chi-squared)."""
    pixels = classes_of((13, 17), seed=1)
    pixels[-9:, -30:] = 2
    opened = open_map(write_map(tmp_path / "small.tif", pixels))
    counted = census(opened)
    times = np.zeros(pixels.shape)
    for seed in range(600):
        drawn = draw(opened, counted, Plan(per_stratum=5, seed=seed))
        times[drawn.row, drawn.col] += 1
    assert times[pixels == 255].sum() == 0
    for value in (1, 2):
        found, cells = times[pixels == value], np.count_nonzero(pixels == value)
        share = 5 / cells
        chi = ((found - 600 * share) ** 2).sum() / (600 * share * (1 - share))
        assert abs(chi - cells) < 4 * np.sqrt(2 * cells)


def test_a_class_of_few_pixels_is_taken_whole(tmp_path: Path) -> None:
    """Even a single one."""
    pixels = classes_of()
    pixels[pixels == 7] = 2
    pixels[40, 60:62], pixels[0, 0] = 1, 7
    found = places(write_map(tmp_path / "map.tif", pixels), Plan(per_stratum=9))
    assert {(row, col) for number, row, col in found if number == 2} == {(0, 0)}
    assert len(found) == 19


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either `per_stratum` or"),
        ({"per_stratum": 5, "standard_error": 0.1}, "either `per_stratum` or"),
        ({"per_stratum": 1}, "two units of each stratum"),
        ({"standard_error": 0.1, "least": 1}, "two units of each stratum"),
        ({"standard_error": 0.5}, "between 0 and 0.5"),
        ({"standard_error": 0.1, "expected": 1.0}, "above 0 and below 1"),
        ({"standard_error": 0.1, "expected_of": (("town", 0.0),)}, "above 0 and below 1"),
        ({"per_stratum": 5, "seed": -1}, "0 or more"),
    ],
)
def test_plans_that_cannot_hold(options: dict[str, object], said: str) -> None:
    """Refused before the map is opened."""
    with pytest.raises(UsageError, match=said):
        Plan(**options)  # type: ignore[arg-type]


def test_sizes_from_a_standard_error(class_map: Path) -> None:
    """The formula, by name and by number; proportional, but for the small ones."""
    strata = census(open_map(class_map)).strata
    of = (("town", 0.7), ("1", 0.8))
    plan = Plan(standard_error=0.02, expected=0.9, expected_of=of, least=30)
    assert plan.accuracies(strata) == [0.8, 0.9, 0.7]
    pixels = np.array([s.pixels for s in strata])
    spread = (pixels / pixels.sum() * np.sqrt([0.16, 0.09, 0.21])).sum()
    assert plan.needed(strata) == int(np.ceil((spread / 0.02) ** 2))
    units = plan.units(strata)
    assert sum(units) == plan.needed(strata)
    assert units[2] == 30
    assert units[1] / units[0] == pytest.approx(pixels[1] / pixels[0], rel=0.05)
    with pytest.raises(UsageError, match=r"\(water, forest, town\), got 'swamp'"):
        Plan(standard_error=0.02, expected_of=(("swamp", 0.7),)).accuracies(strata)


# --- the file ----------------------------------------------------------------------------------


def read(path: Path, layer: str) -> dict[str, npt.NDArray[np.generic]]:
    """Columns of a layer."""
    meta, _, _, columns = pyogrio.raw.read(path, layer=layer)
    return dict(zip(meta["fields"], columns, strict=True))


def test_the_file(class_map: Path, tmp_path: Path) -> None:
    """A point in the middle of each pixel, no reference yet; the design; the answers to choose."""
    out = tmp_path / "sample.gpkg"
    drawn = sample_map(class_map, out, Plan(standard_error=0.03, expected=0.9, least=20, seed=6))
    points, design = read(out, "sample"), read(out, "design")
    meta, _, shapes, _ = pyogrio.raw.read(out, layer="sample")
    assert list(points) == [
        "id", "row", "col", "pixel_ha", "stratum", "stratum_name", "reference",
    ]  # fmt: skip
    assert points["id"].tolist() == list(range(1, len(drawn.row) + 1))
    assert set(points["reference"]) == {None}
    with rasterio.open(class_map) as file:
        assert meta["crs"] == file.crs.to_string()
        import shapely

        x, y = shapely.get_coordinates(shapely.from_wkb(shapes)).T
        assert np.array_equal(x, 400_000 + 10 * (points["col"] + 0.5))
        assert np.array_equal(y, 4_100_000 - 10 * (points["row"] + 0.5))
        pixels = file.read(1)
    assert np.array_equal(pixels[points["row"], points["col"]], points["stratum"])
    assert points["stratum_name"].tolist() == [NAMES[int(v)] for v in points["stratum"]]
    np.testing.assert_allclose(points["pixel_ha"].astype(float), 0.01, rtol=1e-3)
    assert design["stratum"].tolist() == list(NAMES)
    assert design["units"].tolist() == list(drawn.units)
    assert design["pixels"].tolist() == [(pixels == value).sum() for value in NAMES]
    assert design["expected_accuracy"].tolist() == [0.9, 0.9, 0.9]
    told = json.loads(pyogrio.read_info(out, layer="design")["layer_metadata"]["TILEMAP"])
    assert told["seed"] == 6
    assert told["needed"] == drawn.needed == 100
    assert told["formula"].startswith("n = (sum W_i")
    with sqlite3.connect(out) as file:
        found = file.execute(
            "SELECT value FROM gpkg_data_column_constraints ORDER BY rowid"
        ).fetchall()
    assert [value for (value,) in found] == list(NAMES.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["landcover.tif", "sample.gpkg"]


def test_labels_are_never_written_over(class_map: Path, tmp_path: Path) -> None:
    """Nor is anything else that is there; what is no place for a file is told."""
    out = tmp_path / "sample.gpkg"
    sample_map(class_map, out, Plan(per_stratum=5))
    before = out.read_bytes()
    with pytest.raises(OutputError, match="may hold labels"):
        sample_map(class_map, out, Plan(per_stratum=5))
    assert out.read_bytes() == before
    with pytest.raises(OutputError, match=r"\*.gpkg, got"):
        sample_map(class_map, tmp_path / "sample.shp", Plan(per_stratum=5))
    with pytest.raises(OutputError, match="must be a folder"):
        sample_map(class_map, tmp_path / "none" / "sample.gpkg", Plan(per_stratum=5))


def test_a_failed_write_leaves_nothing(
    class_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a partial file."""
    from tilemap.stores import sample_points

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sample_points, "_offer", fail)
    with pytest.raises(OSError, match="disk I/O error"):
        sample_map(class_map, tmp_path / "sample.gpkg", Plan(per_stratum=5))
    assert [p.name for p in tmp_path.iterdir()] == ["landcover.tif"]


def test_a_change_map(tmp_path: Path) -> None:
    """By its codes: only pairs that occur are strata, any pair may be an answer."""
    geobox = GeoBox((40, 61), Affine(30, 0, 5e5, 0, -30, 5e6), "EPSG:32633")
    classes = [
        ClassInfo(value=4, name="forest", color="#006400"),
        ClassInfo(value=9, name="built-up", color="#c00000"),
    ]
    profile = change_profiles(geobox, classes, ["2015-07-01", "2020-07-01"])["change"]
    codes = np.ones((40, 61), dtype=np.uint8)
    codes[:9, :20], codes[30:, 50:], codes[20] = 2, 4, 0
    path = tmp_path / "change.tif"
    write_cog(path, profile, [(Window(0, 0, 40, 61), codes)], tmp_path / "scratch")
    publish(partial_path(path), path)
    out = tmp_path / "sample.gpkg"
    drawn = sample_map(tmp_path, out, Plan(per_stratum=12))
    assert [s.name for s in drawn.strata] == [
        "forest, no change", "forest to built-up", "built-up, no change",
    ]  # fmt: skip
    points = read(out, "sample")
    assert np.array_equal(codes[points["row"], points["col"]], points["stratum"])
    with sqlite3.connect(out) as file:
        found = file.execute(
            "SELECT value FROM gpkg_data_column_constraints ORDER BY rowid"
        ).fetchall()
    assert len(found) == 4
    assert ("built-up to forest",) in found


def test_a_map_is_known_by_what_a_vrt_reads(tmp_path: Path) -> None:
    """A map whose source is exchanged is another one, though the VRT stays."""
    path = tmp_path / "map.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="6" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    digests = []
    for value in (1, 2, 1):
        write_geotiff(tmp_path / "a.tif", np.full((1, 4, 6), value, np.uint8))
        digests.append(open_map(path).digest())
    assert digests[0] == digests[2] != digests[1]
