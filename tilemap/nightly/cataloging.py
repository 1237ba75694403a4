"""The catalog of what is published: made from the ledger's list, the same list the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

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
    ordered = sorted(products, key=lambda product: product.area)
    for area, group in groupby(ordered, key=lambda product: product.area):
        title = titles.get(area, area)
        facts = CollectionFacts(
            area, title, f"{title}. {about.description}", about.license, about.keywords
        )
        members = [Member(p.item, f"{p.folder}/{ITEM_FILE}") for p in group]
        collections.append(build_collection(facts, members))
    catalog = build_catalog(CatalogFacts(about.id, about.title, about.description), collections)
    return write_tree(places.products, catalog, collections)
