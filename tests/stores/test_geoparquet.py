"""Items as a table: read back equal, whole or not at all, the same bytes for the same items."""

from __future__ import annotations

import copy
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError, UnavailableError
from tilemap.stores.geoparquet import read_geoparquet, write_geoparquet
from tilemap.stores.landcover_item import landcover_item
from tilemap.stores.raster_profile import RasterProfile
from tilemap.stores.stac_item import Asset, ItemFacts, build_item

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("stac_geoparquet")


def made(name: str, crs: str | None = "EPSG:32718", **more: Any) -> dict[str, Any]:
    """An item of one raster that exists on paper only."""
    box = GeoBox((31, 43), Affine(30, 0, 535_000, 0, -30, 9_090_000), crs)
    looks = RasterProfile(box, names={0: "water", 1: "land"}, overview="mode")
    start = more.pop("start", date(2020, 5, 18))
    facts = ItemFacts(name, f"Map {name}", box, start, **more)
    asset = Asset(Path(f"/p/{name}/{name[0]}.tif"), "Map", looks, sha256="ab" * 32, bytes=7)
    return build_item(facts, {name[0]: asset}, Path(f"/p/{name}"))


def without_nulls(value: Any) -> Any:
    """As a table has it: null is not there, nor is an object without fields."""
    if isinstance(value, dict):
        found = {key: without_nulls(inside) for key, inside in value.items()}
        return {key: inside for key, inside in found.items() if inside not in (None, {})}
    return [without_nulls(inside) for inside in value] if isinstance(value, list) else value


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two items say the same."""
    return bool(without_nulls(one) == without_nulls(other))


def test_read_back_equal(tmp_path: Path) -> None:
    """One moment or an interval, a place or none, other fields and assets: each as it was."""
    items = [
        made("a", properties={"tilemap:classes": [{"value": 1, "share": 0.5, "area_km2": None}]}),
        made("b", start=date(1985, 7, 1), end=date(2020, 7, 3), software={"tilemap": "1"}),
        made(
            "c", None, lineage="by hand", software={"numpy": "2"}, sources={"s": "https://e.org/s"}
        ),
        made("d", properties={"created": "2020-05-18T10:11:12Z", "tilemap:model": {}}),
    ]
    before = copy.deepcopy(items)
    path = tmp_path / "items.parquet"
    assert write_geoparquet(path, items)
    assert items == before
    found = read_geoparquet(path)
    assert [item["id"] for item in found] == ["a", "b", "c", "d"]
    assert all(same(one, other) for one, other in zip(found, items, strict=True))
    assert found[1]["properties"]["datetime"] is None
    assert found[1]["properties"]["end_datetime"] == "2020-07-03T23:59:59Z"
    assert found[2]["geometry"] is None
    assert "bbox" not in found[2]
    assert found[2]["properties"]["datetime"] == "2020-05-18T00:00:00Z"
    assert set(found[3]["assets"]) == {"d"}
    assert not same(found[0], items[1])  # it would tell


@pytest.mark.parametrize("crs", ["EPSG:32718", None])
def test_one_item(tmp_path: Path, crs: str | None) -> None:
    """Also where no item has a moment, or a place."""
    item = made("a", crs, end=date(2021, 1, 1))
    write_geoparquet(tmp_path / "one.parquet", [item])
    assert same(read_geoparquet(tmp_path / "one.parquet")[0], item)


def test_same_items_same_bytes(tmp_path: Path) -> None:
    """And a file that would not change is not touched; another item changes it."""
    one, two, path = made("a"), made("b", None), tmp_path / "items.parquet"
    assert write_geoparquet(path, [one, two])
    content, before = path.read_bytes(), path.stat()
    assert not write_geoparquet(path, copy.deepcopy([one, two]))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_geoparquet(tmp_path / "other.parquet", [one, two])
    assert (tmp_path / "other.parquet").read_bytes() == content
    assert write_geoparquet(path, [one])
    assert [item["id"] for item in read_geoparquet(path)] == ["a"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["items.parquet", "other.parquet"]


def test_others_read_it(tmp_path: Path) -> None:
    """GeoParquet's metadata, WKB in the geometry, null where there is no place; times are times."""
    path = tmp_path / "items.parquet"
    collection = {"type": "Collection", "id": "area", "title": "Area"}
    write_geoparquet(path, [made("a"), made("b", None)], [collection])
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    about = json.loads(table.schema.metadata[b"stac-geoparquet"])
    assert about["collections"] == {"area": collection}
    shape, nowhere = table["geometry"].to_pylist()
    assert nowhere is None
    assert table["bbox"].to_pylist()[1] is None
    item = made("a")
    assert shapely.from_wkb(shape).equals(shapely.from_geojson(json.dumps(item["geometry"])))
    assert pa.types.is_timestamp(table.schema.field("datetime").type)
    assert np.allclose(list(table["bbox"].to_pylist()[0].values()), item["bbox"])


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    """Items that fit into no table leave what was there, and nothing beside it."""
    path = tmp_path / "items.parquet"
    write_geoparquet(path, [made("a")])
    content = path.read_bytes()
    odd = made("b", properties={"gsd": "thirty"})
    with pytest.raises(StoreError, match="cannot make one table of these items"):
        write_geoparquet(path, [made("a"), odd])
    with pytest.raises(StoreError, match="must have an item, got none"):
        write_geoparquet(path, [])
    with pytest.raises(StoreError, match=r"cannot write .*No such file or directory"):
        write_geoparquet(tmp_path / "nowhere" / "items.parquet", [made("a")])
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["items.parquet"]


def test_what_is_no_such_file(tmp_path: Path) -> None:
    """A missing file, a text, a table of something else."""
    with pytest.raises(StoreError, match=r"items\.parquet is not there"):
        read_geoparquet(tmp_path / "items.parquet")
    (tmp_path / "text.parquet").write_text("text" * 9)
    with pytest.raises(StoreError, match=r"text\.parquet must be stac-geoparquet"):
        read_geoparquet(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(StoreError, match=r"other\.parquet must be stac-geoparquet"):
        read_geoparquet(tmp_path / "other.parquet")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "stac_geoparquet.arrow", None)
    with pytest.raises(UnavailableError, match=r'pip install "tilemap\[geoparquet\]"'):
        write_geoparquet(tmp_path / "items.parquet", [made("a")])


def test_item_of_a_run(mapped: Path, tmp_path: Path) -> None:
    """The item of a real run goes there and back."""
    item = landcover_item(mapped)
    write_geoparquet(tmp_path / "items.parquet", [item])
    assert same(read_geoparquet(tmp_path / "items.parquet")[0], item)


@pytest.mark.slow
def test_items_of_runs_and_series(mapped: Path, compared: Path, tmp_path: Path) -> None:
    """Both kinds in one table, each with its own fields."""
    items = [landcover_item(mapped), json.loads((compared / "item.json").read_text())]
    write_geoparquet(tmp_path / "items.parquet", items)
    found = read_geoparquet(tmp_path / "items.parquet")
    assert all(same(one, other) for one, other in zip(found, items, strict=True))
