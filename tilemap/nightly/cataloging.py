"""The catalog of what is published: made from the ledger's list, the same list the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.facts import Product
from tilemap.nightly.places import Places
from tilemap.stores.catalog import (
    ITEM_FILE,
    CatalogFacts,
    CollectionFacts,
    Member,
    build_catalog,
    build_collection,
)
from tilemap.stores.catalog_tree import TreeChange, write_tree
from tilemap.stores.stac_links import address, is_url

PARQUET = "items.parquet"


def sync_catalog(config: NightlyConfig, places: Places, products: Sequence[Product]) -> TreeChange:
    """Bring the catalog on disk to these products.

    Args:
        config: what the catalog says of the whole and of its areas.
        places: of the passes.
        products: those that are listed.

    Returns:
        The files written; none where nothing changed.
    """
    about = config.catalog
    titles = {area.name: area.title or area.name for area in config.areas}
    collections = []
    for area, members in _members(products).items():
        title = titles.get(area, area)
        facts = CollectionFacts(
            area, title, f"{title}. {about.description}", about.license, about.keywords,
            mirror=f"./{PARQUET}" if (places.products / area / PARQUET).is_file() else "",
        )  # fmt: skip
        collections.append(build_collection(facts, members))
    catalog = build_catalog(CatalogFacts(about.id, about.title, about.description), collections)
    return write_tree(places.products, catalog, collections)


def sync_parquet(places: Places, products: Sequence[Product]) -> bool:
    """Write the items of each area as stac-geoparquet, where they are not the same already.

    Once a pass, not with each product: it takes about a second for 1,000 items.

    Returns:
        Whether anything was written; ``sync_catalog`` names the files then.

    Raises:
        UnavailableError: if the extra is not there.
    """
    from tilemap.stores.geoparquet import write_geoparquet

    written = [
        write_geoparquet(
            places.products / area / PARQUET,
            [_seen_from(places.products / area, places.products, member) for member in members],
        )
        for area, members in _members(products).items()
    ]
    return any(written)


def _seen_from(folder: Path, root: Path, member: Member) -> dict[str, Any]:
    """The item with addresses that start at another folder than its own."""
    lies = (root / member.href).parent

    def seen(entry: Mapping[str, Any]) -> dict[str, Any]:
        href = str(entry["href"])
        whole = is_url(href) or Path(href).is_absolute()
        return {**entry, "href": href if whole else address(str(lies / href), folder)}

    item = member.item
    return {
        **item,
        "links": [seen(link) for link in item["links"]],
        "assets": {key: seen(asset) for key, asset in item["assets"].items()},
    }


def _members(products: Sequence[Product]) -> dict[str, list[Member]]:
    ordered = sorted(products, key=lambda product: product.area)
    return {
        area: [Member(product.item, f"{product.folder}/{ITEM_FILE}") for product in group]
        for area, group in groupby(ordered, key=lambda product: product.area)
    }
