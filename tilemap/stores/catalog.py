"""A static STAC 1.1 catalog: pure functions from items to collections to the catalog.

::

    ROOT/catalog.json
    ROOT/AREA/collection.json
    ROOT/AREA/ID/VERSION/item.json, landcover.tif, ...

Every address is relative to the file it stands in, so the tree can be moved or served from any
place. The same items give the same bytes: no clock, no path of the root.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tilemap.errors import StoreError
from tilemap.stores.extent import WORLD, item_bbox, item_interval, union_bbox, whole_interval
from tilemap.stores.stac_item import EXTENSIONS, VERSION, stamp
from tilemap.stores.summaries import item_assets, summaries

CATALOG_FILE, COLLECTION_FILE, ITEM_FILE = "catalog.json", "collection.json", "item.json"
MOST_BOXES = 100
"""A collection lists the places of its items up to this many; beyond, the box of all alone."""
STRUCTURE = ("root", "parent", "collection", "self", "child", "item")
JSON, GEOJSON = "application/json", "application/geo+json"
PARQUET = "application/vnd.apache.parquet"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Provider:
    """Who licenses, produces, processes or hosts the products.

    Args:
        name: of the organisation.
        roles: of "licensor", "producer", "processor", "host".
        url: of its page.
        description: for people.
    """

    name: str
    roles: tuple[str, ...] = ()
    url: str = ""
    description: str = ""


@dataclass(frozen=True)
class CatalogFacts:
    """What a catalog says of itself.

    Args:
        id: of the catalog.
        title: for people.
        description: for people; CommonMark.
    """

    id: str
    title: str
    description: str

    def __post_init__(self) -> None:
        if not (self.id and self.description):
            raise StoreError("a catalog must have an id and a description")


@dataclass(frozen=True)
class CollectionFacts:
    """What a collection says beside its items.

    Args:
        id: of the collection, and its folder.
        title: for people.
        description: for people; CommonMark.
        license: SPDX identifier, or "other".
        keywords: for people who search.
        providers: in order of time.
        mirror: address of a GeoParquet file with the same items, from the collection on; empty
            for none.

    Raises:
        StoreError: if the id cannot be the name of a folder, or the description is empty.
    """

    id: str
    title: str
    description: str
    license: str = "other"
    keywords: tuple[str, ...] = ()
    providers: tuple[Provider, ...] = ()
    mirror: str = ""

    def __post_init__(self) -> None:
        check_name(self.id)
        if not self.description:
            raise StoreError(f"a collection must have a description, {self.id} has none")


@dataclass(frozen=True)
class Member:
    """An item, and where it lies.

    Args:
        item: as ``member`` makes it.
        href: of its file, from the root of the catalog: ``AREA/ID/VERSION/item.json``.
    """

    item: Mapping[str, Any]
    href: str


def check_name(name: str) -> str:
    """A name that can be an id, a folder and a part of an address alike.

    Raises:
        StoreError: if it has anything but letters, digits, dots, hyphens and underscores.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            "an id must be made of letters, digits, '.', '-' and '_' and begin with a letter or "
            f"digit, got {name!r}"
        )
    return name


def member(item: Mapping[str, Any], href: str, id: str = "") -> Member:  # noqa: A002 (STAC's word)
    """The item as one of a collection: with its name and the links to all above it.

    Args:
        item: as ``build_item`` makes it; not changed.
        href: where its file will lie, from the root of the catalog; the first folder is the
            collection.
        id: another id for it; empty keeps its own.

    Raises:
        StoreError: if the address does not lie in a collection.
    """
    path = PurePosixPath(href)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        raise StoreError(f"an item must lie in a folder of its collection, got {href!r}")
    collection = check_name(path.parts[0])
    up = "../" * (len(path.parts) - 2)
    above = [
        {"rel": "root", "href": f"{up}../{CATALOG_FILE}", "type": JSON},
        {"rel": "parent", "href": f"{up}{COLLECTION_FILE}", "type": JSON},
        {"rel": "collection", "href": f"{up}{COLLECTION_FILE}", "type": JSON},
    ]
    others = [dict(link) for link in item["links"] if link["rel"] not in STRUCTURE]
    whole = {**item, "id": id or item["id"], "collection": collection, "links": above + others}
    return Member(whole, href)


def build_collection(facts: CollectionFacts, members: Iterable[Member]) -> dict[str, Any]:
    """The collection of these items, whatever their order.

    Its box is the narrowest that holds all; items that lie nowhere do not count, and a collection
    of none but these covers the world.

    Raises:
        StoreError: if an item belongs elsewhere, or two have the same id.
    """
    ordered = sorted(members, key=lambda one: (item_interval(one.item)[0], one.item["id"]))
    _check_members(facts, ordered)
    items = [one.item for one in ordered]
    described, found = item_assets(items), summaries(items)
    used = {key.split(":")[0] for fields in (found, *described.values()) for key in fields}
    collection: dict[str, Any] = {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [url for prefix, url in EXTENSIONS.items() if prefix in used],
        "id": facts.id,
        "title": facts.title,
        "description": facts.description,
        "license": facts.license,
        "extent": _extent(items),
        "links": [
            {"rel": "root", "href": f"../{CATALOG_FILE}", "type": JSON},
            {"rel": "parent", "href": f"../{CATALOG_FILE}", "type": JSON},
            *(_item_link(facts.id, one) for one in ordered),
        ],
    }
    if facts.keywords:
        collection["keywords"] = list(facts.keywords)
    if facts.providers:
        collection["providers"] = [_provider(provider) for provider in facts.providers]
    if found:
        collection["summaries"] = found
    if described:
        collection["item_assets"] = described
    if facts.mirror:
        collection["assets"] = {"geoparquet-items": _mirror(facts.mirror)}
    return collection


def build_catalog(facts: CatalogFacts, collections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The catalog of these collections, whatever their order.

    Raises:
        StoreError: if two have the same id.
    """
    ids = sorted(collection["id"] for collection in collections)
    _check_unique(ids, f"collections of the catalog {facts.id}")
    titles = {collection["id"]: collection["title"] for collection in collections}
    children = [
        {
            "rel": "child",
            "href": f"./{check_name(name)}/{COLLECTION_FILE}",
            "type": JSON,
            "title": titles[name],
        }
        for name in ids
    ]
    return {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": facts.id,
        "title": facts.title,
        "description": facts.description,
        "links": [{"rel": "root", "href": f"./{CATALOG_FILE}", "type": JSON}, *children],
    }


def _check_members(facts: CollectionFacts, members: Sequence[Member]) -> None:
    for one in members:
        if one.item.get("collection") != facts.id or one.href.split("/")[0] != facts.id:
            raise StoreError(
                f"items of the collection {facts.id} must lie in its folder and name it, "
                f"{one.item['id']} does not: {one.href}"
            )
    _check_unique([one.item["id"] for one in members], f"items of the collection {facts.id}")


def _check_unique(ids: Sequence[str], of_what: str) -> None:
    twice = sorted(name for name, count in Counter(ids).items() if count > 1)
    if twice:
        raise StoreError(f"{of_what} must have different ids, twice there: {', '.join(twice)}")


def _extent(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    boxes = sorted({box for item in items if (box := item_bbox(item)) is not None})
    whole = union_bbox(boxes) or WORLD
    # STAC wants the box of all alone, or followed by at least two.
    each = boxes if 1 < len(boxes) <= MOST_BOXES else []
    span = whole_interval(items)
    return {
        "spatial": {"bbox": [list(box) for box in (whole, *each)]},
        "temporal": {
            "interval": [[None, None] if span is None else [stamp(moment) for moment in span]]
        },
    }


def _item_link(collection: str, one: Member) -> dict[str, str]:
    href = PurePosixPath(one.href).relative_to(collection)
    link = {"rel": "item", "href": f"./{href}", "type": GEOJSON}
    title = one.item["properties"].get("title")
    return {**link, "title": title} if title else link


def _provider(provider: Provider) -> dict[str, Any]:
    fields = {
        "name": provider.name,
        "description": provider.description,
        "roles": list(provider.roles),
        "url": provider.url,
    }
    return {key: value for key, value in fields.items() if value}


def _mirror(href: str) -> dict[str, Any]:
    return {
        "href": href,
        "title": "The items as GeoParquet",
        "type": PARQUET,
        "roles": ["collection-mirror"],
    }
