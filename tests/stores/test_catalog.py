"""The catalog as values: what collections say of their items, valid, in any order the same."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import StoreError
from tilemap.stores.catalog import (
    MOST_BOXES,
    CatalogFacts,
    CollectionFacts,
    Member,
    Provider,
    build_catalog,
    build_collection,
    member,
)
from tilemap.stores.raster_profile import RasterProfile
from tilemap.stores.stac_item import Asset, ItemFacts, build_item, json_text

Validate = Callable[[dict[str, Any]], list[str]]
FACTS = CollectionFacts(
    "pucallpa",
    "Pucallpa",
    "Land cover of Pucallpa.",
    "CC-BY-4.0",
    ("land cover", "Peru"),
    (Provider("Survey", ("producer", "processor"), "https://example.org"), Provider("Other")),
)
CATALOG = CatalogFacts("products", "Products", "All maps.")
NAMES = {0: "water", 1: "land"}


def made(
    name: str,
    day: date = date(2020, 5, 18),
    *,
    east: float = 535_000,
    size: float = 30,
    crs: str | None = "EPSG:32718",
    names: dict[int, str] | None = None,
    key: str = "landcover",
) -> Member:
    """An item of one raster that exists on paper only."""
    box = GeoBox((31, 43), Affine(size, 0, east, 0, -size, 9_090_000), crs)
    looks = RasterProfile(box, names=names or NAMES, overview="mode")
    facts = ItemFacts(name, f"Map {name}", box, day, sources={"scene": "https://example.org/s.tif"})
    asset = Asset(
        Path(f"/products/{name}/{key}.tif"), "Land cover", looks, sha256="ab" * 32, bytes=7
    )
    item = build_item(facts, {key: asset}, Path(f"/products/{name}"))
    return member(item, f"pucallpa/{name}/v1/item.json")


def test_member_knows_all_above_it() -> None:
    """Links lead from the item up; it names its collection; what it is made of stays."""
    one = made("a")
    assert one.item["collection"] == "pucallpa"
    assert [(link["rel"], link["href"]) for link in one.item["links"]] == [
        ("root", "../../../catalog.json"),
        ("parent", "../../collection.json"),
        ("collection", "../../collection.json"),
        ("derived_from", "https://example.org/s.tif"),
    ]
    again = member(one.item, "other/a/v2/deeper/item.json", "other-a")
    assert [link["href"] for link in again.item["links"]][:2] == [
        "../../../../catalog.json", "../../../collection.json",
    ]  # fmt: skip
    assert len(again.item["links"]) == 4
    assert (again.item["id"], again.item["collection"]) == ("other-a", "other")
    assert one.item["id"] == "a"  # the first is as it was


@pytest.mark.parametrize("href", ["item.json", "a/item.json", "/a/b/item.json", "a/../b/item.json"])
def test_member_lies_in_a_collection(href: str) -> None:
    """An address that does not lie in a folder of a collection is refused."""
    with pytest.raises(StoreError, match="must lie in a folder of its collection"):
        member(made("a").item, href)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a b", "a/b", "ä"])
def test_names_are_folders(name: str) -> None:
    """An id that cannot be a folder and a part of an address is refused."""
    with pytest.raises(StoreError, match="an id must be made of letters"):
        CollectionFacts(name, "t", "d")


def test_facts_need_a_description() -> None:
    """STAC wants one."""
    with pytest.raises(StoreError, match="a collection must have a description, a has none"):
        CollectionFacts("a", "t", "")
    with pytest.raises(StoreError, match="must have an id and a description"):
        CatalogFacts("a", "t", "")


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_valid_by_the_schemas(count: int, validate: Validate) -> None:
    """Collections of none, one, two and more items, their items, and the catalog of all."""
    members = [made(str(n), east=535_000 + 9000 * n) for n in range(count)]
    collection = build_collection(FACTS, members)
    catalog = build_catalog(CATALOG, [collection])
    for value in (collection, catalog, *(one.item for one in members)):
        assert validate(json.loads(json_text(value))) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("license", None),
        (
            "extent",
            {"spatial": {"bbox": [[0, 0, 1, 1], [0, 0, 1, 1]]}, "temporal": {"interval": []}},
        ),
        ("item_assets", {"landcover": {"href": "./landcover.tif", "title": "no"}}),
        ("summaries", {"gsd": []}),
        ("item_assets", {"a": {"title": "b", "raster:sampling": "pixel"}}),
        ("summaries", {"classification:classes": [{"value": "one", "name": "a"}]}),
        ("providers", [{"name": "a", "roles": ["reader"]}]),
    ],
)
def test_validation_can_fail(validate: Validate, field: str, value: object) -> None:
    """A collection with a fault does not pass, by neither validator."""
    broken = {**build_collection(FACTS, [made("a")]), field: value}
    if value is None:
        del broken[field]
    faults = validate(broken)
    assert any(fault.startswith("stac-validator") for fault in faults)
    assert any(not fault.startswith("stac-validator") for fault in faults)


def test_any_order_the_same_bytes() -> None:
    """Items by day, then id; collections by id; nothing given is changed."""
    days = [date(2021, 1, 1), date(2020, 1, 1), date(2020, 1, 1), date(2019, 1, 1)]
    members = [made(name, day) for name, day in zip("abcd", days, strict=True)]
    before = copy.deepcopy(members)
    collection = build_collection(FACTS, members)
    titles = [link["title"] for link in collection["links"] if link["rel"] == "item"]
    assert titles == ["Map d", "Map b", "Map c", "Map a"]
    assert collection["links"][2]["href"] == "./d/v1/item.json"
    others = [build_collection(CollectionFacts(n, n.upper(), "d"), []) for n in ("z", "b")]
    text = json_text(build_catalog(CATALOG, [collection, *others]))
    for seed in range(5):
        shuffled = random.Random(seed).sample(members, len(members))
        again = build_collection(FACTS, shuffled)
        assert json_text(again) == json_text(collection)
        assert json_text(build_catalog(CATALOG, [*others, again])) == text
    assert members == before
    children = [link["href"] for link in json.loads(text)["links"] if link["rel"] == "child"]
    assert children == ["./b/collection.json", "./pucallpa/collection.json", "./z/collection.json"]


def test_extent() -> None:
    """The box of all, then each; from the first day to the last; a day ends where it begins."""
    members = [made("a", date(2021, 1, 2)), made("b", east=600_000), made("c", east=600_000)]
    extent = build_collection(FACTS, members)["extent"]
    boxes = extent["spatial"]["bbox"]
    assert len(boxes) == 3
    assert boxes[1:] == sorted([members[0].item["bbox"], members[1].item["bbox"]])
    assert boxes[0] == [boxes[1][0], boxes[1][1], boxes[2][2], max(boxes[1][3], boxes[2][3])]
    assert extent["temporal"]["interval"] == [["2020-05-18T00:00:00Z", "2021-01-02T00:00:00Z"]]
    alone = build_collection(FACTS, members[1:])["extent"]["spatial"]["bbox"]
    assert alone == [members[1].item["bbox"]]


def test_extent_across_the_antimeridian() -> None:
    """Fiji: one item on each side, one across; the box is narrow, not around the world."""
    fiji = [
        made("west", crs="EPSG:32760", east=700_000, size=10),
        made("across", crs="EPSG:32760", east=829_000, size=10),
        made("east", crs="EPSG:32701", east=220_000, size=10),
    ]
    box = build_collection(FACTS, fiji)["extent"]["spatial"]["bbox"][0]
    assert 178 < box[0] < 180
    assert -180 < box[2] < -178


def test_items_without_a_place(validate: Validate) -> None:
    """They do not count for the box; a collection of none but these covers the world."""
    plain, placed = made("plain", crs=None), made("placed")
    mixed = build_collection(FACTS, [plain, placed])
    assert mixed["extent"]["spatial"]["bbox"] == [placed.item["bbox"]]
    alone = build_collection(FACTS, [plain])
    assert alone["extent"]["spatial"]["bbox"] == [[-180.0, -90.0, 180.0, 90.0]]
    assert "proj:code" not in alone.get("summaries", {})
    for value in (mixed, alone, dict(plain.item)):
        assert validate(json.loads(json_text(value))) == []


def test_many_places_are_one_box() -> None:
    """Beyond a hundred places the box of all stands alone: the file stays small."""
    members = [made(str(n), east=200_000 + 2000 * n) for n in range(MOST_BOXES + 1)]
    assert len(build_collection(FACTS, members[:-1])["extent"]["spatial"]["bbox"]) == MOST_BOXES + 1
    assert len(build_collection(FACTS, members)["extent"]["spatial"]["bbox"]) == 1


def test_summaries() -> None:
    """Codes, pixel sizes, classes; and what assets of one name have in common."""
    members = [made("a"), made("b", size=10), made("c", crs="EPSG:32719")]
    collection = build_collection(FACTS, members)
    summaries = collection["summaries"]
    assert summaries["proj:code"] == ["EPSG:32718", "EPSG:32719"]
    assert summaries["gsd"]["minimum"] == pytest.approx(10, rel=1e-2)
    assert summaries["gsd"]["maximum"] == pytest.approx(30, rel=1e-2)
    assert [c["title"] for c in summaries["classification:classes"]] == ["water", "land"]
    shared = collection["item_assets"]["landcover"]
    assert shared["title"] == "Land cover"
    assert shared["classification:classes"] == summaries["classification:classes"]
    assert "raster:spatial_resolution" not in shared  # 10 and 30
    assert not {"href", "file:checksum", "file:size"} & shared.keys()
    declared = [url.split("/")[3] for url in collection["stac_extensions"]]
    assert declared == ["projection", "raster", "classification"]
    assert collection["license"] == "CC-BY-4.0"
    assert collection["keywords"] == ["land cover", "Peru"]
    assert collection["providers"][0] == {
        "name": "Survey", "roles": ["producer", "processor"], "url": "https://example.org",
    }  # fmt: skip


def test_numbers_with_two_meanings_are_not_summed_up() -> None:
    """Where 1 is land here and forest there, only the assets tell; dated assets are left out."""
    members = [made("a"), made("b", names={0: "water", 1: "forest"}, key="labels_2020-05-18")]
    collection = build_collection(FACTS, members)
    assert "classification:classes" not in collection["summaries"]
    assert list(collection["item_assets"]) == ["landcover"]
    other = [made("a"), made("b", names={0: "water", 1: "forest"})]
    assert (
        "classification:classes" not in build_collection(FACTS, other)["item_assets"]["landcover"]
    )


def test_mirror(validate: Validate) -> None:
    """A GeoParquet file with the same items is an asset of the collection."""
    facts = CollectionFacts("pucallpa", "t", "d", mirror="./items.parquet")
    collection = build_collection(facts, [made("a")])
    assert collection["assets"]["geoparquet-items"]["href"] == "./items.parquet"
    assert collection["assets"]["geoparquet-items"]["roles"] == ["collection-mirror"]
    assert validate(collection) == []


def test_items_belong_to_their_collection_once() -> None:
    """An item of another collection, and two of one id, are errors."""
    with pytest.raises(StoreError, match=r"must lie in its folder .* b does not: other/b/v1"):
        build_collection(FACTS, [made("a"), member(made("b").item, "other/b/v1/item.json")])
    with pytest.raises(StoreError, match="must have different ids, twice there: a"):
        build_collection(FACTS, [made("a"), Member(made("a").item, "pucallpa/a/v2/item.json")])
    collection = build_collection(FACTS, [])
    with pytest.raises(StoreError, match="collections of the catalog products must have different"):
        build_catalog(CATALOG, [collection, collection])
