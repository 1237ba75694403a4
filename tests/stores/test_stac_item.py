"""STAC items: what the schemas ask for, what pystac and our own reader understand."""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.local_validator import get_local_schema_cache

from tilemap.errors import StoreError
from tilemap.geometry import Window
from tilemap.stores.cog import RasterProfile, partial_path, publish, write_cog
from tilemap.stores.stac import read_item
from tilemap.stores.stac_item import EXTENSIONS, Asset, ItemFacts, build_item, write_item

BOX = GeoBox((31, 43), Affine(30, 0, 535000, 0, -30, 9_090_000), "EPSG:32718")
CHANGE = RasterProfile(
    BOX,
    nodata=0,
    palette={1: (9, 9, 9), 2: (250, 0, 16)},
    names={1: "forest, no change", 2: "forest to built-up", 3: "forest - to (built-up)", 4: "森林"},
    overview="mode",
    description="class before and after",
)
DAYS = RasterProfile(
    BOX,
    nodata=-2147483648,
    dtype="int32",
    bands=("day of the last change", "gap"),
    overview="nearest",
    tags={"UNITS": "days"},
)
QA = RasterProfile(BOX, overview="nearest", bits={0: "fewer than two dates", 5: "provisional"})
FLOAT = RasterProfile(BOX, nodata=math.nan, dtype="float32", tags={"UNITS": "percent"})


def facts(**more: Any) -> ItemFacts:
    """Of a series."""
    fixed: dict[str, Any] = {
        "id": "pucallpa-1985-2020",
        "title": "Change",
        "geobox": BOX,
        "start": date(1985, 7, 1),
        "end": date(2020, 7, 3),
        "sources": {"1985": "https://example.org/1985.json"},
        "software": {"tilemap": "0.1.0"},
        "lineage": "compared by hmm",
    }
    return ItemFacts(**{**fixed, **more})


def product(folder: Path, name: str, look: RasterProfile) -> Asset:
    """A raster of zeros, published."""
    shape = look.shape if look.count == 1 else (look.count, *look.shape)
    path = folder / name
    pixels = np.zeros(shape, dtype=look.dtype)
    write_cog(path, look, [(Window(0, 0, *look.shape), pixels)], folder / "scratch")
    publish(partial_path(path), path)
    return Asset(path, name, look)


def series(folder: Path) -> dict[str, Any]:
    """An item with all kinds of files, written and read again."""
    (folder / "areas.csv").write_text("class\n")
    (folder / "probabilities.zarr").mkdir()
    assets = {
        "change": product(folder, "change.tif", CHANGE),
        "date": product(folder, "date.tif", DAYS),
        "qa": product(folder, "qa.tif", QA),
        "float": product(folder, "float 1.tif", FLOAT),
        "areas": Asset(folder / "areas.csv", "areas", roles=("metadata",)),
        "probabilities": Asset(folder / "probabilities.zarr", "probabilities"),
    }
    write_item(folder / "item.json", build_item(facts(), assets, folder))
    item: dict[str, Any] = json.loads((folder / "item.json").read_text())
    return item


def every(item: dict[str, Any], prefix: str) -> dict[str, list[Any]]:
    """Values of all fields of an extension, by name, wherever they stand."""
    found: dict[str, list[Any]] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, inside in value.items():
                if key.startswith(f"{prefix}:"):
                    found.setdefault(key, []).append(inside)
                walk(inside)
        elif isinstance(value, list):
            for inside in value:
                walk(inside)

    walk(item)
    return found


def test_core_schema(tmp_path: Path) -> None:
    """STAC 1.1.0's own schema, which pystac ships, finds no fault."""
    jsonschema, referencing = pytest.importorskip("jsonschema"), pytest.importorskip("referencing")
    cache = get_local_schema_cache()
    name = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    if name not in cache:
        pytest.skip("this pystac knows an older STAC only")
    registry = referencing.Registry().with_resources(
        (url, referencing.Resource.from_contents(schema)) for url, schema in cache.items()
    )
    validator = jsonschema.Draft7Validator(cache[name], registry=registry)
    item = series(tmp_path)
    assert list(validator.iter_errors(item)) == []
    del item["properties"]["end_datetime"]
    assert list(validator.iter_errors(item))  # it would tell


def test_extensions_are_declared_as_used(tmp_path: Path) -> None:
    """Each prefix has its schema; fields are those of the schemas, in their forms."""
    item = series(tmp_path)
    assert item["stac_extensions"] == list(EXTENSIONS.values())
    assert set(every(item, "proj")) == {"proj:code", "proj:shape", "proj:transform", "proj:bbox"}
    assert set(every(item, "raster")) == {"raster:sampling", "raster:spatial_resolution"}
    assert set(every(item, "processing")) == {"processing:lineage", "processing:software"}
    assert set(every(item, "file")) == {"file:checksum", "file:size"}
    assert item["properties"]["proj:shape"] == [31, 43]
    assert item["properties"]["proj:transform"] == [30, 0, 535000, 0, -30, 9_090_000]
    assert item["properties"]["proj:bbox"] == [535000, 9_089_070, 536290, 9_090_000]
    assert item["properties"]["proj:code"] == "EPSG:32718"
    assert item["properties"]["gsd"] == pytest.approx(30, rel=1e-3)
    bare = build_item(facts(lineage="", software={}), {}, tmp_path)
    assert bare["stac_extensions"] == [EXTENSIONS["proj"]]


def test_checksums_are_multihashes(tmp_path: Path) -> None:
    """sha2-256 is 0x12, 32 bytes are 0x20; a folder has neither digest nor size."""
    item = series(tmp_path)
    for key, asset in item["assets"].items():
        if key == "probabilities":
            assert "file:checksum" not in asset
            assert "file:size" not in asset
            continue
        content = (tmp_path / asset["href"]).read_bytes()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset["file:size"] == len(content)


def test_known_digests_are_believed(tmp_path: Path) -> None:
    """A product was hashed when it was written; its file is not read again."""
    asset = Asset(tmp_path / "gone.tif", "gone", CHANGE, sha256="ab" * 32, bytes=7)
    fields = build_item(facts(), {"gone": asset}, tmp_path)["assets"]["gone"]
    assert (fields["file:checksum"], fields["file:size"]) == ("1220" + "ab" * 32, 7)
    with pytest.raises(StoreError, match=r"cannot read .*gone\.tif: No such file"):
        build_item(facts(), {"gone": Asset(tmp_path / "gone.tif", "gone", CHANGE)}, tmp_path)


def test_classes_have_words_and_names(tmp_path: Path) -> None:
    """The word is for machines, no two alike; the title is ours, the colour a hint."""
    classes = series(tmp_path)["assets"]["change"]["classification:classes"]
    assert [c["value"] for c in classes] == [1, 2, 3, 4]
    assert [c["title"] for c in classes][1:] == [
        "forest to built-up", "forest - to (built-up)", "森林",
    ]  # fmt: skip
    words = [c["name"] for c in classes]
    assert words == ["forest-no-change", "forest-to-built-up", "forest-to-built-up-3", "class-4"]
    assert all(re.fullmatch("[0-9A-Za-z_-]+", word) for word in words)
    assert classes[1]["color_hint"] == "fa0010"
    assert "color_hint" not in classes[2]


def test_bits_and_bands(tmp_path: Path) -> None:
    """Each bit is a field of its own; bands have names, numbers a type, nodata and unit."""
    assets = series(tmp_path)["assets"]
    fields = assets["qa"]["classification:bitfields"]
    assert [(f["offset"], f["length"], f["name"]) for f in fields] == [
        (0, 1, "fewer-than-two-dates"),
        (5, 1, "provisional"),
    ]
    assert all([c["value"] for c in f["classes"]] == [0, 1] for f in fields)
    assert [band["description"] for band in assets["date"]["bands"]] == [
        "day of the last change", "gap",
    ]  # fmt: skip
    assert (assets["date"]["data_type"], assets["date"]["nodata"]) == ("int32", -2147483648)
    assert assets["date"]["unit"] == "d"
    assert (assets["float"]["nodata"], assets["float"]["unit"]) == ("nan", "%")
    assert assets["float"]["href"] == "./float 1.tif"
    assert assets["areas"]["type"] == "text/csv"


def test_pystac_and_we_understand_it(tmp_path: Path) -> None:
    """pystac's extensions read the fields; ``segment`` and ``change`` take the item as a scene."""
    series(tmp_path)
    item = pystac.Item.from_file(str(tmp_path / "item.json"))
    assert item.datetime is None
    assert item.common_metadata.start_datetime == datetime(1985, 7, 1, tzinfo=UTC)
    assert item.common_metadata.end_datetime == datetime(2020, 7, 3, 23, 59, 59, tzinfo=UTC)
    assert ProjectionExtension.ext(item).code == "EPSG:32718"
    change = item.assets["change"]
    assert FileExtension.ext(change).size == (tmp_path / "change.tif").stat().st_size
    classes = ClassificationExtension.ext(change).classes
    assert classes is not None
    assert classes[1].color_hint == "fa0010"
    ours = read_item(str(tmp_path / "item.json"))
    names = [Path(asset.path).name for asset in ours.assets]
    assert names == ["change.tif", "date.tif", "float 1.tif"]  # qa.tif is a quality layer
    assert ours.date == datetime(1985, 7, 1, tzinfo=UTC)


def test_sources_are_links(tmp_path: Path) -> None:
    """URLs stay, paths are told from where the item lies."""
    sources = {
        "a": "https://example.org/a b.json",
        "b": str(tmp_path / "in side" / "scene.tif"),
        "c": str(tmp_path.parent / "before" / "landcover.tif"),
    }
    item = build_item(facts(sources=sources), {}, tmp_path)
    assert all(link["rel"] == "derived_from" for link in item["links"])
    assert [link["href"] for link in item["links"]] == [
        "https://example.org/a b.json", "./in side/scene.tif", "../before/landcover.tif",
    ]  # fmt: skip
    assert [link["title"] for link in item["links"]] == ["a", "b", "c"]
    assert item["links"][0]["type"] == "application/geo+json"


def test_one_moment(tmp_path: Path) -> None:
    """A class map has one; a moment keeps its time, in UTC."""
    when = datetime.fromisoformat("2023-06-01T17:30:00+02:00")
    properties = build_item(facts(start=when, end=None, description="x"), {}, tmp_path)[
        "properties"
    ]
    assert properties["description"] == "x"
    assert properties["datetime"] == "2023-06-01T15:30:00Z"
    assert "start_datetime" not in properties
    with pytest.raises(StoreError, match="must not end before it starts"):
        facts(start=date(2020, 7, 4))


def test_no_crs_and_no_code(tmp_path: Path) -> None:
    """Without a CRS there is no place; without a code there is its text."""
    plain = build_item(facts(geobox=GeoBox((3, 4), Affine.identity(), None)), {}, tmp_path)
    assert plain["geometry"] is None
    assert "bbox" not in plain
    assert plain["properties"]["proj:code"] is None
    assert "gsd" not in plain["properties"]
    sinusoidal = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
    box = GeoBox((30, 40), Affine(231.656, 0, -6e6, 0, -231.656, -1.3e6), sinusoidal)
    properties = build_item(facts(geobox=box), {}, tmp_path)["properties"]
    assert properties["proj:code"] is None
    assert "Sinusoidal" in properties["proj:wkt2"]
    assert properties["gsd"] == pytest.approx(231.656, rel=1e-3)


def test_same_facts_same_item(tmp_path: Path) -> None:
    """No time of writing, no place of the folder in it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert series(tmp_path / "a") == series(tmp_path / "b")
