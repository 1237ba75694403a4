"""What the folders below a root say, whatever the ledger says.

::

    ROOT/products/catalog.json                    names the collections
    ROOT/products/AREA/collection.json            names the products that are listed
    ROOT/products/AREA/ID/VERSION/work.json       what the product is made of
    ROOT/products/AREA/ID/VERSION/item.json       its files, their sizes and checksums

A folder whose name begins with a point is being made or removed, and is none of ours to judge.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilemap.directory import RUN_FILE, read_json, write_json
from tilemap.errors import StoreError
from tilemap.files import read_sealed, write_sealed
from tilemap.nightly.facts import Product
from tilemap.nightly.rows import product_from_json, product_to_json

PRODUCTS = "products"
WORK_FILE, ITEM_FILE = "work.json", "item.json"
COLLECTION_FILE, CATALOG_FILE = "collection.json", "catalog.json"
_SHA256 = "1220"
"""How a multihash begins that is a sha2-256 of 32 bytes."""


def product_folders(root: Path) -> Iterator[str]:
    """Every folder that a product may lie in, in order, relative to the products, as posix."""
    products = root / PRODUCTS
    for path in sorted(products.glob("*/*/*")):
        relative = path.relative_to(products)
        if path.is_dir() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix()


def read_product(root: Path, folder: str) -> Product:
    """The product of one folder, as a listed one.

    Raises:
        StoreError: its ``work.json`` is not there, cannot be read, or is of another folder.
    """
    value = read_sealed(root / PRODUCTS / folder / WORK_FILE)
    if value is None:
        raise StoreError(f"its {WORK_FILE} is gone or damaged")
    product = product_from_json(value)
    if product.folder != folder:
        raise StoreError(f"its {WORK_FILE} is of {product.folder}")
    return product


def sealed(root: Path, product: Product) -> Product | None:
    """The product as the sound record in its folder has it; None without such a record.

    Args:
        root: of the passes.
        product: as the ledger has it; whether it is listed or forgotten is known there only.
    """
    try:
        kept = read_product(root, product.folder)
    except StoreError:
        return None
    digest = kept.digest if product.digest else ""  # it was forgotten
    return replace(kept, digest=digest, listed=product.listed, unlisted=product.unlisted)


def listed_folders(root: Path, area: str) -> set[str] | None:
    """Folders that the catalog names of one area; None if that cannot be told.

    An area that a sound catalog does not name has none.
    """
    products = root / PRODUCTS
    named = _linked(products / area / COLLECTION_FILE, "item")
    if named is not None:
        return {_beside(f"{area}/{COLLECTION_FILE}", href) for href in named}
    catalogued = catalogued_areas(root)
    return set() if catalogued is not None and area not in catalogued else None


def catalogued_areas(root: Path) -> set[str] | None:
    """Areas whose collections the catalog names; None if there is no catalog that can be read."""
    named = _linked(root / PRODUCTS / CATALOG_FILE, "child")
    return None if named is None else {_beside(CATALOG_FILE, href) for href in named}


def faults(root: Path, folder: str, contents: bool) -> list[str]:
    """What is wrong with the files of one product, in words.

    Args:
        root: of the passes.
        folder: of the product, relative to the products.
        contents: read the files and compare their checksums; else only their sizes.
    """
    place = root / PRODUCTS / folder
    if not place.is_dir():
        return ["its folder is gone"]
    item = read_json(place / ITEM_FILE)
    assets = item.get("assets") if isinstance(item, dict) else None
    if not isinstance(assets, dict):
        return [f"its {ITEM_FILE} is gone or is no item"]
    found = (_fault(place, asset, contents) for asset in assets.values())
    return [text for text in found if text is not None]


def lost(root: Path, product: Product, contents: bool) -> list[str]:
    """Say what is wrong with the rasters of a product; they alone prove that it is whole.

    Args:
        root: of the passes.
        product: as the ledger or its ``work.json`` has it.
        contents: read the rasters and compare their checksums; else only their sizes.
    """
    place = root / PRODUCTS / product.folder
    if not place.is_dir():
        return ["its folder is gone"]
    found = (_fault(place, asset, contents) for asset in _assets(product) if _is_proof(asset))
    return [text for text in found if text is not None]


def mend_records(root: Path, product: Product) -> list[str]:
    """Write item and ``work.json`` of a whole product again where they are not what they were.

    Returns:
        Names of the files written.
    """
    place = root / PRODUCTS / product.folder
    written = []
    if read_json(place / ITEM_FILE) != product.item:
        write_json(place / ITEM_FILE, product.item)
        written.append(ITEM_FILE)
    work = json.loads(json.dumps(product_to_json(product)))  # as it is read
    there = read_sealed(place / WORK_FILE)
    if there is not None and not work["digest"]:
        work["digest"] = there.get("digest")  # it was forgotten
    if there != work and work["digest"]:
        write_sealed(place / WORK_FILE, work)
        written.append(WORK_FILE)
    return written


@dataclass(frozen=True, slots=True)
class Mended:
    """The files of a product after they were compared with their checksums.

    Args:
        written: names of those that were written again.
        faults: of files beside the rasters that cannot be made again, in words.
        lost: faults of rasters, in words; the product is not whole then.
    """

    written: tuple[str, ...]
    faults: tuple[str, ...]
    lost: tuple[str, ...]


def mend(root: Path, product: Product) -> Mended:
    """Read all files of a product; write those again that are not what they were.

    A file is taken from the product's run, if it is whole there. Names and colours of a class map
    are made again from the raster.
    """
    place = root / PRODUCTS / product.folder
    if not place.is_dir():
        return Mended((), (), ("its folder is gone",))
    written, faults, lost = mend_records(root, product), list[str](), list[str]()
    for asset in sorted(_assets(product), key=_is_proof, reverse=True):
        fault = _fault(place, asset, contents=True)
        if fault is None:
            continue
        name = str(asset["href"]).removeprefix("./")
        source = root / product.run / name
        if source.parent.is_dir() and _fault(source.parent, asset, contents=True) is None:
            _copy(source, place / name)
        elif product.kind == "map" and not _is_proof(asset) and not lost:
            _write_sidecars(place)
        fault = _fault(place, asset, contents=True)
        if fault is None:
            written.append(name)
        else:
            (lost if _is_proof(asset) else faults).append(fault)
    return Mended(tuple(written), tuple(faults), tuple(lost))


def size_of(product: Product) -> int:
    """Bytes of the files of a product, as its item has them."""
    return sum(
        size for asset in _assets(product) if isinstance(size := asset.get("file:size"), int)
    )


def _write_sidecars(place: Path) -> None:
    """Write the sidecars of a class map from what the raster and ``run.json`` say."""
    from tilemap.stores.profile_reading import read_profile
    from tilemap.stores.sidecars import ClassRow, write_sidecars

    record = read_sealed(place / RUN_FILE)
    rows = record.get("classes") if record is not None else None
    path = place / "landcover.tif"
    if not isinstance(rows, list) or not path.is_file():
        return
    palette = read_profile(path).palette or {}
    with suppress(TypeError, KeyError):
        write_sidecars(path, [ClassRow(color=palette[row["value"]], **row) for row in rows])


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _assets(product: Product) -> list[dict[str, Any]]:
    assets = product.item.get("assets")
    return [one for one in assets.values() if "href" in one] if isinstance(assets, dict) else []


def _is_proof(asset: dict[str, Any]) -> bool:
    """Whether a file is a result, not one that only describes or shows it."""
    return not {"metadata", "thumbnail", "overview"} & set(asset.get("roles", ()))


def _fault(place: Path, asset: dict[str, Any], contents: bool) -> str | None:
    href = str(asset.get("href"))
    if is_address(href):
        return None
    path = place / href
    name = href.removeprefix("./")
    if not path.is_file():
        return f"{name} is gone"
    size, checksum = asset.get("file:size"), asset.get("file:checksum")
    if size is not None and path.stat().st_size != size:
        return f"{name} must have {size} bytes, it has {path.stat().st_size}"
    if contents and isinstance(checksum, str) and checksum.startswith(_SHA256):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != checksum.removeprefix(_SHA256):
            return f"{name} has other bytes than were published"
    return None


def is_address(href: str) -> bool:
    """Whether a link leads elsewhere than to a file beside."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", href) is not None


def _linked(path: Path, rel: str) -> list[str] | None:
    """Where the links of one kind lead; None if the file is not there or is not of STAC."""
    value = read_json(path)
    links = value.get("links") if isinstance(value, dict) else None
    if not isinstance(links, list):
        return None
    return [
        str(link.get("href"))
        for link in links
        if isinstance(link, dict)
        and link.get("rel") == rel
        and not is_address(str(link.get("href")))
    ]


def _beside(file: str, href: str) -> str:
    """Folder of what a file links to, both relative to the products."""
    parts: list[str] = file.split("/")[:-1]
    for part in href.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in (".", ""):
            parts.append(part)
    return "/".join(parts[:-1])
