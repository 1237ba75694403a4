"""What may be removed: pure rules, and the removal that follows them.

A product goes in two steps: the catalog ceases to name it, and when that was long enough ago its
folder is removed. What the catalog names is never removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tilemap.nightly.cataloging import sync_catalog
from tilemap.nightly.config import AreaTable, NightlyConfig
from tilemap.nightly.disk import listed_folders
from tilemap.nightly.facts import Product
from tilemap.nightly.places import Places
from tilemap.nightly.telling.rotation import rotate
from tilemap.nightly.works import wanted

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger
    from tilemap.nightly.lock import Lock
    from tilemap.nightly.telling import PassLog


def to_unlist(listed: Sequence[Product], keep_dates: int | None) -> list[Product]:
    """Maps of dates that are no longer to be kept.

    Args:
        listed: what the catalog names of one area.
        keep_dates: newest dates that stay; None keeps all.
    """
    kept = wanted((), listed, keep_dates)
    return [product for product in listed if product.kind == "map" and product.id not in kept]


def to_remove(
    products: Sequence[Product],
    named: Collection[str],
    grace_s: float,
    now: datetime,
    keep_dates: int | None = None,
) -> list[Product]:
    """Products whose folders may go: another is listed instead, or the date is not to be kept.

    Args:
        products: all that the ledger has.
        named: folders that the catalog on disk names now, whatever the ledger says.
        grace_s: seconds they stay after they were last named.
        now: with a clock that jumped back nothing is old enough.
        keep_dates: newest dates that stay; None keeps all.
    """
    before = now - timedelta(seconds=grace_s)
    listed = [product for product in products if product.listed]
    return [
        product
        for product in products
        if not product.listed
        and product.folder not in named
        and product.unlisted is not None
        and product.unlisted <= before
        and _is_dispensable(product, listed, keep_dates)
    ]


def _is_dispensable(product: Product, listed: Sequence[Product], keep_dates: int | None) -> bool:
    area = [one for one in listed if one.area == product.area]
    if any((one.kind, one.id) == (product.kind, product.id) for one in area):
        return True
    return product.kind == "map" and product.id not in wanted((), [*area, product], keep_dates)


def stale_runs(places: Places, area: str, key: str, kept: Collection[str]) -> list[Path]:
    """Run directories of one scene that neither a product nor work to come needs.

    Args:
        places: of the passes.
        area: name of the area.
        key: of the scene.
        kept: run folders still needed, relative to the root.
    """
    folder = places.work / area / key
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and path.relative_to(places.root).as_posix() not in kept
    )


def remove_run(folder: Path, hosts: Sequence[str]) -> None:
    """Remove the directory of a run, and its stores where they lie on S3.

    Args:
        folder: of the run.
        hosts: that may be asked.

    Raises:
        OutputError: if something that lies on S3 cannot be removed.
    """
    from tilemap.directory import RunDirectory
    from tilemap.stores.remote.address import AllowList

    RunDirectory(folder, AllowList.of(hosts)).remove_stores()
    remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that nobody meets half of it: it loses its name first."""
    if not folder.exists():
        return
    gone = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    parent = folder.parent
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()


def named_folders(places: Places) -> set[str]:
    """Folders that the collections on disk name, relative to the products, whatever is known."""
    named = set()
    for path in places.products.glob("*/collection.json"):
        named |= listed_folders(places.root, path.parent.name) or set()
    return named


def retain(
    config: NightlyConfig,
    areas: Sequence[AreaTable],
    places: Places,
    ledger: Ledger,
    lock: Lock,
    log: PassLog,
) -> list[str]:
    """Take old dates out of the catalog; remove what it has not named for long enough.

    Returns:
        The folders removed, relative to the products.
    """
    rules, now = config.retention, datetime.now(UTC)
    old = [
        product
        for area in areas
        for product in to_unlist(ledger.products(area=area.name), rules.keep_dates)
    ]
    if old:
        with ledger.publishing(lock) as publication:
            for product in old:
                publication.unlist(product, now)
                log.event("unlisted", text=f"no longer in the catalog: {product.folder}")
            sync_catalog(config, places, ledger.products())
    for folder in (places.logs, places.passes):
        rotate(folder, rules.logs, now)
    removed = []
    every = ledger.products(listed=None)
    kept = {product.run for product in every if product.listed}
    for product in to_remove(every, named_folders(places), rules.grace, now, rules.keep_dates):
        with ledger.publishing(lock) as publication:
            publication.removed(product)
            remove_folder(places.products / product.folder)
        for folder in stale_runs(places, product.area, product.id, kept):
            remove_run(folder, config.remote.allow_hosts)
        removed.append(product.folder)
        log.event("removed", text=f"removed: {product.folder}")
    return removed
