"""Products and catalog at a second place, such as a bucket: whole there too, and never ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.places import Places
from tilemap.stores.catalog import CATALOG_FILE, COLLECTION_FILE

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger
    from tilemap.nightly.lock import Lock


def mirror(config: NightlyConfig, places: Places, ledger: Ledger, lock: Lock) -> int:
    """Bring what is published to ``config.publish.to``.

    Products first, each whole; then the collections, the catalog last; then what was removed here
    is removed there. What is there already is not sent again, so that a pass that was stopped in
    the middle is continued by the next.

    Returns:
        Objects sent or removed.

    Raises:
        OutputError: if the place may not be asked, or something cannot be sent.
        LostLockError: if the lock was taken over.
        UnavailableError: if the extra is not there.
    """
    from tilemap.stores.remote.publish import delete_prefix, put_bytes, put_folder

    assert config.publish.to is not None
    to, hosts, count = config.publish.to.rstrip("/"), config.remote.allow_hosts, 0
    for product in ledger.unmirrored():
        lock.verify()
        folder = places.products / product.folder
        receipts = put_folder(folder, f"{to}/{product.folder}", allow_hosts=hosts)
        count += sum(receipt.sent for receipt in receipts)
        with ledger.publishing(lock) as publication:
            publication.mirrored(product)
    for path in _indexes(places.products):
        lock.verify()
        address = f"{to}/{path.relative_to(places.products).as_posix()}"
        count += put_bytes(address, path.read_bytes(), hosts).sent
    for product in ledger.left_over():
        lock.verify()
        count += delete_prefix(f"{to}/{product.folder}", hosts)
        with ledger.publishing(lock) as publication:
            publication.unmirrored(product)
    return count


def _indexes(products: Path) -> Iterator[Path]:
    """Tables, collections, and the catalog that names them."""
    yield from sorted(products.glob("*/*.parquet"))
    yield from sorted(products.glob(f"*/{COLLECTION_FILE}"))
    yield products / CATALOG_FILE
