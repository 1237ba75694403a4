"""Before a pass begins: what a kill left behind is taken up or taken away."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tilemap.nightly import disk
from tilemap.nightly.cataloging import sync_catalog
from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.inspection import strays
from tilemap.nightly.places import Places
from tilemap.nightly.publishing import leftovers

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger
    from tilemap.nightly.lock import Lock
    from tilemap.nightly.telling import PassLog


def recover(
    config: NightlyConfig, places: Places, ledger: Ledger, lock: Lock, log: PassLog
) -> None:
    """Make ledger, catalog and disk agree.

    Runs that were at work are told as interrupted. A product that was named but not yet written
    down is taken in; one that is gone from disk is unlisted, so that it is made again. The catalog
    is brought to what the ledger says.
    """
    now = datetime.now(UTC)
    lost = ledger.interrupted(now)
    if lost:
        log.event("recovered", text=f"{lost} runs of an earlier pass were interrupted")
    for folder in leftovers(places):
        shutil.rmtree(folder, ignore_errors=True)
    found = strays(ledger, places.root)
    gone, corrected = [], []
    for product in ledger.products():
        kept = disk.sealed(places.root, product)
        if kept is not None and kept != product:  # a row has no checksum, the record has
            corrected.append(kept)
            product = kept
            text = f"{product.folder}: its row in the ledger is corrected from its record"
            log.event("mended", text=text)
        if disk.lost(places.root, product, contents=False):
            gone.append(product)
        elif written := disk.mend_records(places.root, product):
            log.event("mended", text=f"{product.folder}: written again: {', '.join(written)}")
    with ledger.publishing(lock) as publication:
        for product in corrected:
            publication.correct(product)
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
