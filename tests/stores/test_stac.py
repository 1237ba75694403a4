"""STAC items of both dialects as scenes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.stac import StacBand, read_item
from tilemap.testing import random_scene, write_geotiff


def item(assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A minimal item."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "toy",
        "geometry": None,
        "properties": {"datetime": "2023-06-01T15:58:29Z", **properties},
        "links": [{"rel": "root", "href": "https://nowhere.invalid/catalog.json"}],
        "assets": assets,
    }


def write_item(path: Path, content: Any) -> Path:
    """As a file."""
    path.write_text(json.dumps(content))
    return path


def opened(path: Path, **asked: object) -> SceneSource:
    """A scene of one item."""
    return open_scene(SceneRequest((str(path),), **asked))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two bands at 10 m in one file, one at 20 m in another, a picture of them."""
    (tmp_path / "img").mkdir()
    write_geotiff(tmp_path / "img/fine.tif", random_scene((60, 80), 2))
    write_geotiff(
        tmp_path / "img/coarse.tif",
        random_scene((30, 40), 1, 3),
        transform=Affine(20, 0, 400_000, 0, -20, 4_100_000),
    )
    write_geotiff(tmp_path / "img/tci.tif", random_scene((60, 80), 3, dtype=np.uint8))
    return tmp_path


OLD = {
    "fine": {
        "href": "./img/fine.tif",
        "roles": ["data"],
        "eo:bands": [
            {"name": "B04", "common_name": "red"},
            {"name": "B05", "common_name": "rededge"},
        ],
        "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}, {"scale": 0.0001}],
    },
    "coarse": {
        "href": "img/coarse.tif",
        "eo:bands": [{"name": "B12", "common_name": "swir22"}],
    },
    "visual": {
        "href": "img/tci.tif",
        "roles": ["visual"],
        "eo:bands": [{"common_name": n} for n in ("red", "green", "blue")],
    },
    "metadata": {"href": "img/x.xml", "roles": ["metadata"]},
}
NEW = {
    "fine": {
        "href": "./img/fine.tif",
        "raster:scale": 0.0001,
        "bands": [
            {"name": "B04", "eo:common_name": "red", "raster:offset": -0.1, "nodata": 0},
            {"name": "B05", "eo:common_name": "rededge071"},
        ],
    },
    "swir22": {"href": "img/coarse.tif"},
}


def test_item_of_version_1_0(folder: Path):
    """Names, scaling, nodata and date come from the item; the picture is no data."""
    source = opened(write_item(folder / "item.json", item(OLD, platform="Sentinel-2A")))
    scene = source.scene
    assert scene.band_names == ("red", "rededge1", "swir22")
    assert scene.date == datetime(2023, 6, 1, 15, 58, 29, tzinfo=UTC)
    red, edge, swir = scene.bands
    assert (red.scale, red.offset, red.nodata, red.scaled) == (1e-4, -0.1, 0, True)
    assert (edge.scale, edge.offset, edge.nodata, edge.scaled) == (1e-4, 0, None, True)
    assert not swir.scaled
    assert [Path(f).name for f in source.files] == ["fine.tif", "coarse.tif"]
    with source.open() as reader:
        got, valid = reader.read(Window(0, 0, 60, 80))
    np.testing.assert_array_equal(got[:2], random_scene((60, 80), 2))
    assert valid.all()


def test_item_of_version_1_1(folder: Path):
    """The same in the newer dialect: ``bands`` with prefixed fields, asset-wide scale."""
    path = write_item(folder / "item.geojson", item(NEW) | {"stac_version": "1.1.0"})
    scene = opened(path, bands=("swir22", "red", "rededge1")).scene
    swir, red, edge = scene.bands
    assert (red.scale, red.offset, red.nodata) == (1e-4, -0.1, 0)
    assert (edge.scale, edge.offset) == (1e-4, 0)
    assert swir.name == "swir22"


def test_only_wanted_assets_are_opened(folder: Path):
    """An asset of other bands may be missing; a wanted one may not."""
    (folder / "img/coarse.tif").unlink()
    path = write_item(folder / "item.json", item(OLD))
    assert opened(path, bands=("red",)).scene.band_names == ("red",)
    with pytest.raises(SceneError, match=r"no such file: .*img/coarse\.tif"):
        opened(path, bands=("red", "swir22"))


def test_assets_elsewhere_are_named(folder: Path):
    """Nothing is fetched; what is not here is said where a band is missing."""
    assets = OLD | {"coarse": OLD["coarse"] | {"href": "https://nowhere.invalid/coarse.tif"}}
    path = write_item(folder / "item.json", item(assets))
    assert opened(path).scene.band_names == ("red", "rededge")
    with pytest.raises(SceneError, match=r"lacks swir22.*\(not on this disk: coarse on nowhere"):
        opened(path, bands=("red", "swir22"))
    del assets["fine"]
    path = write_item(folder / "other.json", item({k: assets[k] for k in ("coarse",)}))
    with pytest.raises(SceneError, match=r"no asset .* is a local raster; coarse on nowhere"):
        opened(path)


def test_pictures_are_data_where_there_is_nothing_else(folder: Path):
    """An item of one picture is that picture; file addresses are local files."""
    href = (folder / "img/tci.tif").as_uri()
    path = write_item(folder / "item.json", item({"visual": {"href": href, "roles": ["visual"]}}))
    assert opened(path).scene.band_names == ("red", "green", "blue")


def test_interval_instead_of_a_date(folder: Path):
    """An item over an interval has the date it begins."""
    times = {"start_datetime": "2023-05-01T00:00:00Z", "end_datetime": "2023-07-31T00:00:00Z"}
    path = write_item(folder / "item.json", item(NEW, datetime=None, **times))
    assert opened(path).scene.date == datetime(2023, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("platform", "codes"),
    [
        ("landsat-1", ("B4", "B5", "B6")),
        ("landsat-5", ("B1", "B2", "B3")),
        (None, ("B3", "B4", "B5")),
    ],
)
def test_common_names_come_before_codes(
    tmp_path: Path, platform: str | None, codes: tuple[str, ...]
):
    """The first Landsats number their bands in their own way: the item says what is what."""
    assets = {}
    for code, name in zip(codes, ("green", "red", "nir08"), strict=True):
        write_geotiff(tmp_path / f"{code}.tif", random_scene((9, 9), 1))
        band = {"name": code, "common_name": name}
        assets[name] = {"href": f"./{code}.tif", "eo:bands": [band]}
    said = {} if platform is None else {"platform": platform, "instruments": ["mss"]}
    path = write_item(tmp_path / "item.json", item(assets, **said))
    assert opened(path).scene.band_names == ("green", "red", "nir08")
    red = opened(path, bands=("red",))
    assert [Path(file).name for file in red.files] == [f"{codes[1]}.tif"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"platform": "landsat-5", "instruments": ["mss"]}, "nir09"),
        ({"platform": "landsat-5", "instruments": ["tm"]}, "nir"),
        ({"platform": "landsat-8", "instruments": ["oli", "tirs"]}, "red"),
        ({"platform": "landsat-5"}, "band_1"),
        ({"platform": "terra", "instruments": ["aster"]}, "band_1"),
        ({}, "band_1"),
    ],
)
def test_codes_of_an_item_need_its_sensor(tmp_path: Path, said: dict[str, Any], name: str):
    """Without a common name a code counts only if platform and instruments say whose it is."""
    write_geotiff(tmp_path / "x.tif", random_scene((9, 9), 1))
    assets = {"B4": {"href": "./x.tif", "eo:bands": [{"name": "B4"}]}}
    path = write_item(tmp_path / "item.json", item(assets, **said))
    assert opened(path).scene.band_names == (name,)


def test_the_sensor_of_an_item_holds_for_its_files(tmp_path: Path):
    """Bands that the item does not list are named by their keys, or files, and the platform."""
    for code in ("B04", "B08"):
        write_geotiff(tmp_path / f"{code}.tif", random_scene((9, 9), 1))
    assets = {"B04": {"href": "./B04.tif"}, "other": {"href": "./B08.tif"}}
    path = write_item(tmp_path / "item.json", item(assets, platform="sentinel-2b"))
    assert opened(path).scene.band_names == ("red", "nir")
    path = write_item(tmp_path / "item.json", item(assets))
    assert opened(path).scene.band_names == ("band_1", "band_2")


def test_quality_layers_of_an_item_are_no_bands(tmp_path: Path):
    """By their key or their file, whatever role they have."""
    for stem in ("x_SR_B1", "x_SR_QA_AEROSOL", "x_SCL"):
        write_geotiff(tmp_path / f"{stem}.tif", random_scene((9, 9), 1))
    assets = {
        "coastal": {"href": "./x_SR_B1.tif", "eo:bands": [{"common_name": "coastal"}]},
        "sr_aerosol": {"href": "./x_SR_QA_AEROSOL.tif", "roles": ["data"]},
        "classes": {"href": "./x_SCL.tif", "roles": ["data"]},
    }
    source = opened(write_item(tmp_path / "item.json", item(assets)))
    assert source.scene.band_names == ("coastal",)
    assert [Path(file).name for file in source.files] == ["x_SR_B1.tif"]


def test_four_listed_bands_are_data(tmp_path: Path):
    """GDAL tags the fourth of four bands of bytes as alpha; the item says that it is a band."""
    names = ("red", "green", "blue", "nir")
    write_geotiff(tmp_path / "a.tif", random_scene((9, 9), 4, dtype=np.uint8))
    assets = {"image": {"href": "./a.tif", "eo:bands": [{"common_name": n} for n in names]}}
    source = opened(write_item(tmp_path / "item.json", item(assets)))
    assert source.scene.band_names == names


def test_read_item_by_itself(folder: Path):
    """Paths are absolute, bands merged from both lists."""
    read = read_item(str(write_item(folder / "item.json", item(OLD))))
    assert [a.path for a in read.assets] == [
        str(folder / "img/fine.tif"),
        str(folder / "img/coarse.tif"),
    ]
    assert read.assets[0].bands[0] == StacBand("red", 0, 1e-4, -0.1)
    assert read.assets[1].bands == (StacBand("swir22"),)
    assert read.elsewhere == ()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"type": "FeatureCollection"}',
        '{"type": "Feature"}',
        json.dumps(item({})),
        json.dumps(item({"a": {"href": "x.txt"}})),
        json.dumps(item(NEW) | {"properties": {"datetime": "yesterday"}}),
        json.dumps(item({"a": {"href": "a.tif", "bands": [{"nodata": "no"}]}})),
        json.dumps(item({"a": {"href": 7}})),
        json.dumps(item({"a": None})),
    ],
)
def test_not_an_item(tmp_path: Path, content: str):
    """Anything else is an error in words."""
    path = tmp_path / "item.json"
    path.write_text(content)
    with pytest.raises(SceneError, match="STAC item"):
        opened(path)


@pytest.mark.parametrize(
    ("name", "href"),
    [
        ("a b.tif", "./a%20b.tif"),
        ("a b.tif", "a b.tif"),
        ("c#d.tif", "./c%23d.tif"),
        ("c#d.tif", "./c#d.tif"),
        ("100%.tif", "./100%25.tif"),
        ("a%20b.tif", "./a%20b.tif"),
        ("a.tif", "./a.tif?version=2"),
        ("\u00e9t\u00e9.tif", "./%C3%A9t%C3%A9.tif"),
    ],
)
def test_references_are_decoded(tmp_path: Path, name: str, href: str) -> None:
    """A reference is a URL; a file of that very name comes first."""
    file = write_geotiff(tmp_path / name, random_scene(bands=1))
    source = opened(write_item(tmp_path / "item.json", item({"red": {"href": href}})))
    assert source.scene.band_names == ("red",)
    assert source.files[0] == str(file)


def test_a_reference_to_nothing_names_the_file(tmp_path: Path) -> None:
    """As it would be called on this disk."""
    with pytest.raises(SceneError, match=r"no such file: .*a b\.tif"):
        opened(write_item(tmp_path / "item.json", item({"red": {"href": "./a%20b.tif"}})))


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("e.gtiff", "image/tiff; application=geotiff"),
        ("e", "image/tiff; application=geotiff; profile=cloud-optimized"),
        ("e.img", "IMAGE/TIFF"),
    ],
)
def test_media_type_says_what_a_suffix_does_not(tmp_path: Path, name: str, media_type: str) -> None:
    """An asset that says it is a GeoTIFF is one, whatever its name."""
    write_geotiff(tmp_path / "e.tif", random_scene(bands=1)).rename(tmp_path / name)
    asset = {"href": f"./{name}", "type": media_type}
    source = opened(write_item(tmp_path / "item.json", item({"red": asset})))
    assert source.scene.band_names == ("red",)


def test_items_of_different_days_are_no_scene(folder: Path) -> None:
    """The day of the item counts, not that in a file's name; one item is of one day."""
    items = []
    for day in ("2023-06-01", "2023-06-21"):
        file = write_geotiff(folder / f"{day}_20200101.tif", random_scene((20, 20), 1))
        asset = {"red": {"href": file.name, "type": "image/tiff", "eo:bands": [{"name": "red"}]}}
        content = item(asset, datetime=f"{day}T10:00:00Z")
        items.append(str(write_item(folder / f"{day}.json", content)))
    for one in items:
        open_scene(SceneRequest((one,)))
    with pytest.raises(SceneMismatchError, match=r"of 2023-06-01, .* of 2023-06-21; take each day"):
        open_scene(SceneRequest(tuple(items)))
    scene = open_scene(SceneRequest(tuple(items), mosaic=True)).scene
    assert scene.date is not None
    assert scene.date.date().isoformat() == "2023-06-01"
