"""A finished run becomes a product: staged beside its place, named in one step, then catalogued.

The catalog's commit lies inside the ledger's, and both inside the check of the lock: whoever lost
the lock publishes nothing, and a kill leaves either the product before or the product after.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.directory import OURS, RUN_FILE, read_json
from tilemap.errors import OutputError, StoreError
from tilemap.files import storing, write_sealed
from tilemap.nightly import disk
from tilemap.nightly.cataloging import sync_catalog
from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.doing import Made
from tilemap.nightly.facts import Product
from tilemap.nightly.places import Places, title_of
from tilemap.nightly.rows import product_to_json
from tilemap.nightly.works import Work

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger
    from tilemap.nightly.lock import Lock

ITEM, WORK = "item.json", "work.json"
_LARGE = (".tif", ".gpkg")


def publish(
    work: Work, made: Made, config: NightlyConfig, places: Places, ledger: Ledger, lock: Lock
) -> Product:
    """Publish what a run left, whole.

    Raises:
        LostLockError: if the lock was taken over; nothing is published then.
        OutputError: if the files cannot be written, or the disk is full; nothing is left then.
    """
    before = ledger.product(work.area, work.kind, work.id)
    if before is not None and _is_there(work, made, before, places):
        return before
    final = _place(work, places, ledger)
    staged, broken = (final.with_name(f".{how}-{final.name}") for how in ("staged", "removed"))
    name = title_of(work.kind, work.area, work.id)
    try:
        with storing(f"cannot publish {name} into {places.products}", kind=OutputError):
            product = stage(work, made, places, staged, final)
            with ledger.publishing(lock) as publication:
                if final.exists():
                    final.rename(broken)
                staged.rename(final)
                sync_folder(final.parent)
                publication.add(product)
                sync_catalog(config, places, ledger.products())
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(broken, ignore_errors=True)
    return product


def _is_there(work: Work, made: Made, before: Product, places: Places) -> bool:
    """Return True if what was made is published already, as after a run that was only mended."""
    result = str(made.record["digest"])
    same = (before.digest, before.result, before.status) == (work.digest, result, made.status)
    return same and made.status == "ok" and not disk.lost(places.root, before, contents=True)


def _place(work: Work, places: Places, ledger: Ledger) -> Path:
    """Folder of a product: that of the same one if it is damaged, else a new one."""
    for product in ledger.products(listed=False, area=work.area):
        same = (product.kind, product.id, product.digest) == (work.kind, work.id, work.digest)
        if same and disk.lost(places.root, product, contents=True):
            return places.products / product.folder
    return places.product(work.area, work.id, work.digest)


def stage(work: Work, made: Made, places: Places, staged: Path, final: Path) -> Product:
    """Fill a folder with a run's products, their STAC item and ``work.json``, all on the disk.

    Args:
        work: that was done.
        made: what came of it.
        places: of the passes.
        staged: folder to fill; one that an earlier pass left is removed.
        final: its name when it is published.
    """
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    names = _map_files(made.run) if work.kind == "map" else _change_files(made)
    for name in names:
        link_or_copy(made.run / name, staged / name)
    item = _item(work, made, places, staged, final)
    product = Product(
        area=work.area,
        kind=work.kind,
        id=work.id,
        version=final.name,
        digest=work.digest,
        result=str(made.record["digest"]),
        day=work.day or _day(made.record),
        status=made.status,
        folder=final.relative_to(places.products).as_posix(),
        run=made.run.relative_to(places.root).as_posix(),
        item=item,
        published=datetime.now(UTC).replace(microsecond=0),
        pixels=made.pixels,
        km2=made.km2,
        seconds=round(made.seconds, 3),
        sources=sources_of(work),
        fingerprint=work.fingerprint,
    )
    _write(staged / ITEM, item)
    write_sealed(staged / WORK, product_to_json(product))
    for path in staged.iterdir():
        _sync(path, os.O_RDONLY)
    sync_folder(staged)
    return product


def sources_of(work: Work) -> dict[str, str]:
    """Title and address of what a work is made of."""
    if work.kind == "map":
        return {Path(source).name: source for source in work.sources}
    return {str(product.day): f"{product.folder}/{ITEM}" for product in work.dates}


def _map_files(run: Path) -> list[str]:
    return [name for name in OURS if (run / name).is_file()]


def _change_files(made: Made) -> list[str]:
    shown = {*made.record["files"], "report.html"}  # of which one may not be there
    names = {*made.record["products"], *(n for n in shown if (made.run / n).is_file()), RUN_FILE}
    return sorted(names - {ITEM})


def _item(work: Work, made: Made, places: Places, staged: Path, final: Path) -> dict[str, Any]:
    from tilemap.stores.catalog import member
    from tilemap.stores.stac_item import measure_file, multihash
    from tilemap.stores.stac_links import with_sources

    name = f"{work.area}-{work.id}"
    if work.kind == "map":
        from tilemap.stores.landcover_item import landcover_item

        known = made.record["scene"]["date"]
        day = work.day if known is None else None
        item = landcover_item(staged, final, item_id=name, day=day, sources=sources_of(work))
    else:
        lies: dict[str, Any] | None = read_json(made.run / ITEM)
        if lies is None:
            raise StoreError(f"{made.run} must have an {ITEM}, it has none")
        item = with_sources(lies, _dates(work, places), final)
        item["assets"]["run"] = {
            "href": f"./{RUN_FILE}", "title": "What was run", "roles": ["metadata"],
            "type": "application/json",
        }  # fmt: skip
        known = {asset["href"].removeprefix("./"): asset for asset in item["assets"].values()}
        for path in sorted(staged.iterdir()):  # so that each has its checksum
            asset = known.get(path.name)
            if asset is None:
                asset = {"href": f"./{path.name}", "title": path.name, "roles": ["metadata"]}
                item["assets"][path.name] = asset
            digest, size = measure_file(path)
            asset |= {"file:checksum": multihash(digest), "file:size": size}
    href = f"{final.relative_to(places.products).as_posix()}/{ITEM}"
    return dict(member(item, href, name).item)


def _dates(work: Work, places: Places) -> dict[str, str]:
    """Item of each date of a series, by its day."""
    return {
        str(product.day): str(places.products / product.folder / ITEM) for product in work.dates
    }


def _day(record: Mapping[str, Any]) -> date | None:
    known = record.get("scene", {}).get("date")
    return None if known is None else datetime.fromisoformat(known).date()


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under another name: of a large file a link where the file system can.

    A run replaces its files by renaming new ones into place, so that a link keeps the old bytes.
    A small file is copied, so that one of the two can mend the other.
    """
    if source.suffix in _LARGE:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def leftovers(places: Places) -> Iterable[Path]:
    """Folders that a kill left half staged or half removed."""
    if not places.products.is_dir():
        return ()
    found = (*places.products.glob("*/*/.staged-*"), *places.products.glob("*/*/.removed-*"))
    return tuple(path for path in found if path.is_dir())
