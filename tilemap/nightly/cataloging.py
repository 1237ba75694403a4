"""The catalog of what is published: made from the ledger's list, the same list the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.facts import Product
from tilemap.nightly.places import Places


def sync_catalog(
    config: NightlyConfig, places: Places, products: Sequence[Product]
) -> tuple[Path, ...]:
    """Bring the catalog on disk to these products.

    Args:
        config: what the catalog says of the whole and of its areas.
        places: of the passes.
        products: those that are listed.

    Returns:
        The files written; none where nothing changed.
    """
    from tilemap.stores.catalog import (
        CatalogFacts,
        CollectionFacts,
        build_catalog,
        build_collection,
        write_tree,
    )

    about = config.catalog
    facts = CatalogFacts(about.id, about.title, about.description)
    titles = {area.name: area.title or area.name for area in config.areas}
    collections = {}
    by_area = sorted((p for p in products if p.listed), key=lambda p: (p.area, p.folder))
    for area, group in groupby(by_area, key=lambda p: p.area):
        collection = CollectionFacts(
            area,
            titles.get(area, area),
            f"{about.description} {titles.get(area, area)}.",
            about.license,
            about.keywords,
        )
        items = {p.folder.removeprefix(f"{area}/") + "/item.json": p.item for p in group}
        collections[area] = build_collection(collection, items)
    return write_tree(places.products, build_catalog(facts, collections), collections)
