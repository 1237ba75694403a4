"""Before a pass begins: what a kill left behind is taken up or taken away."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tilemap.nightly import disk
from tilemap.nightly.cataloging import sync_catalog
from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.facts import Product
from tilemap.nightly.inspection import strays
from tilemap.nightly.places import Places
from tilemap.nightly.publishing import leftovers

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger
    from tilemap.nightly.lock import Lock
    from tilemap.nightly.telling import PassLog


def recover(
    config: NightlyConfig, places: Places, ledger: Ledger, lock: Lock, log: PassLog
) -> list[Product]:
    """Make ledger, catalog and disk agree.

    Runs that were at work are told as interrupted. A product that was named but not yet written
    down is taken in. Files that are damaged are written again from the run of their product; a
    product that is gone from disk or stays damaged is unlisted, so that it is made again. The
    catalog is brought to what the ledger says.

    Returns:
        The products that were unlisted.
    """
    now = datetime.now(UTC)
    lost = ledger.interrupted(now)
    if lost:
        log.event("recovered", text=f"{lost} runs of an earlier pass were interrupted")
    for folder in leftovers(places):
        shutil.rmtree(folder, ignore_errors=True)
    found = strays(ledger, places.root)
    gone, corrected, suspects = [], [], []
    for product in ledger.products():
        kept = disk.sealed(places.root, product)
        if kept is not None and kept != product:  # a row has no checksum, the record has
            corrected.append(kept)
            product = kept
            text = f"{product.folder}: its row in the ledger is corrected from its record"
            log.event("mended", text=text)
        if disk.lost(places.root, product, contents=False):
            suspects.append(product)
        elif written := disk.mend_records(places.root, product):
            log.event("mended", text=f"{product.folder}: written again: {', '.join(written)}")
    with ledger.publishing(lock) as publication:
        for product in corrected:
            publication.correct(product)
    suspects += _in_turn(ledger, config.nightly.verify, {product.folder for product in suspects})
    for product in suspects:
        lock.verify()
        if not _mend(places, product, log):
            gone.append(product)
    ledger.checked(suspects)
    with ledger.publishing(lock) as publication:
        for product in found:
            listed = ledger.product(product.area, product.kind, product.id)
            if listed is not None and listed.published > product.published:
                continue  # an old version that nobody knows; `tilemap ledger check` tells of it
            publication.add(product)
            log.event("adopted", text=f"taken in from disk: {product.folder}")
        for product in gone:
            publication.unlist(product, now)
            text = f"{product.folder} is gone from disk or not whole; it is made again"
            log.event("lost", "warning", text)
        sync_catalog(config, places, ledger.products())
    return gone


def _in_turn(ledger: Ledger, most: int, others: Collection[str]) -> list[Product]:
    """Products to compare with their checksums now: those that were not for longest.

    Args:
        ledger: what is known.
        most: bytes that they have together; one product is compared however large it is.
        others: folders that are compared anyway.
    """
    chosen, left = list[Product](), most
    for product in ledger.oldest_checked():
        if product.folder in others:
            continue
        left -= disk.size_of(product)
        if left < 0 and chosen:
            break
        chosen.append(product)
    return chosen


def _mend(places: Places, product: Product, log: PassLog) -> bool:
    """Compare the files of a product with their checksums; return False if it cannot be mended."""
    mended = disk.mend(places.root, product)
    if mended.written:
        text = f"{product.folder}: written again: {', '.join(mended.written)}"
        log.event("mended", text=text)
    for fault in mended.faults:
        text = (
            f"{product.folder}: {fault}; `tilemap ledger forget {product.area}/{product.id}` "
            "has it made again"
        )
        log.event("damaged", "warning", text)
    return not mended.lost
