"""Where the ledger and the disk disagree."""

from __future__ import annotations

from pathlib import Path

from tilemap.errors import StoreError
from tilemap.nightly import disk, quarantine_files
from tilemap.nightly.facts import Product
from tilemap.nightly.ledger import Ledger, product_to_json


def check(ledger: Ledger, root: Path, contents: bool = True) -> list[str]:
    """Where they disagree, one line each; none if all is well.

    Args:
        ledger: open, or a copy.
        root: whose ledger it is.
        contents: read every published file and compare its checksum; else only sizes.
    """
    products = ledger.products(listed=None)
    folders = {product.folder for product in products}
    left_over = {product.folder for product in ledger.left_over()}
    lines = [line for product in products for line in _product(root, product, contents)]
    for folder in disk.product_folders(root):
        if folder in left_over:
            lines.append(f"{folder}: removed in the ledger, but still there")
        elif folder not in folders:
            lines.append(f"{folder}: not in the ledger; {_fate(root, folder)}")
    return [*lines, *_listing(root, products), *_quarantines(ledger, root)]


def strays(ledger: Ledger, root: Path) -> list[Product]:
    """Whole products on disk that the ledger does not know, the one published first first.

    A kill leaves one if it comes after the folder got its name and before the ledger's commit.
    """
    known = {p.folder for p in (*ledger.products(listed=None), *ledger.left_over())}
    found = []
    for folder in disk.product_folders(root):
        if folder not in known:
            try:
                product = disk.read_product(root, folder)
            except StoreError:
                continue  # `check` tells
            if not disk.lost(root, product, contents=False):
                found.append(product)
    return sorted(found, key=lambda product: product.published)


def _product(root: Path, product: Product, contents: bool) -> list[str]:
    lines = disk.faults(root, product.folder, contents)
    if (root / disk.PRODUCTS / product.folder).is_dir():
        try:
            there = product_to_json(disk.read_product(root, product.folder))
        except StoreError as error:
            lines.append(str(error))
        else:
            known = product_to_json(product)
            known["digest"] = known["digest"] or there["digest"]  # it was forgotten
            odd = [name for name in there if there[name] != known[name]]
            lines += [f"{name} differs between ledger and {disk.WORK_FILE}" for name in odd]
    return [f"{product.folder}: {line}" for line in lines]


def _fate(root: Path, folder: str) -> str:
    found = disk.faults(root, folder, contents=False)
    try:
        disk.read_product(root, folder)
    except StoreError as error:
        found.append(str(error))
    return "; ".join(found) if found else "the next pass takes it in"


def _listing(root: Path, products: list[Product]) -> list[str]:
    """Products that only the ledger or only the catalog names."""
    lines = []
    folder = root / disk.PRODUCTS
    areas = {product.area for product in products}
    areas |= {path.parent.name for path in folder.glob(f"*/{disk.COLLECTION_FILE}")}
    catalogued = disk.catalogued_areas(root) or set()
    for area in sorted(areas):
        listed = {p.folder for p in products if p.area == area and p.listed}
        named = disk.listed_folders(root, area)
        if named is None:
            lines.append(f"{area}: its {disk.COLLECTION_FILE} is gone or is no collection")
            continue
        if named and area not in catalogued:
            lines.append(f"{area}: {disk.CATALOG_FILE} does not name it")
        lines += [f"{one}: listed, but the catalog does not name it" for one in listed - named]
        lines += [f"{one}: the catalog names it, but it is not listed" for one in named - listed]
    return sorted(lines)


def _quarantines(ledger: Ledger, root: Path) -> list[str]:
    rows = {quarantine_files.path_of(root, q.area, q.kind, q.id): q for q in ledger.quarantines()}
    lines = []
    files = set(quarantine_files.paths(root))
    for path in sorted(files | rows.keys()):
        name = path.relative_to(root).as_posix()
        if path not in files:
            lines.append(f"{name}: in the ledger, but the file is gone")
        elif path not in rows:
            lines.append(f"{name}: not in the ledger")
        else:
            try:
                if quarantine_files.read(root, path) != rows[path]:
                    lines.append(f"{name}: differs from the ledger")
            except StoreError as error:
                lines.append(f"{name}: {error}")
    return lines
