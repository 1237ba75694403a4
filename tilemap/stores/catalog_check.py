"""Whether a catalog on disk is whole: what is named is there, and what is there is named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tilemap.errors import StoreError
from tilemap.stores.catalog import CATALOG_FILE, COLLECTION_FILE, ITEM_FILE
from tilemap.stores.catalog_tree import read_stac
from tilemap.stores.stac_item import measure_file, multihash
from tilemap.stores.stac_links import is_url


def check_tree(root: Path, checksums: bool = False) -> list[str]:
    """Every fault of a catalog, a line each; empty if there is none.

    Links that lead nowhere, files of another size, items of another collection, item folders and
    collections that nobody names. What items are made of may be gone: that is no fault.

    Args:
        root: folder of ``catalog.json``.
        checksums: read every file and compare its digest too.
    """
    return list(_Check(Path(os.path.normpath(root.absolute())), checksums).faults())


class _Check:
    def __init__(self, root: Path, checksums: bool) -> None:
        self._root, self._checksums = root, checksums
        self._collections: set[Path] = set()
        self._items: set[Path] = set()

    def faults(self) -> Iterator[str]:
        top = self._root / CATALOG_FILE
        try:
            catalog = read_stac(top, "Catalog")
        except StoreError as error:
            yield self._short(str(error))
            return
        yield from self._upwards(top, catalog, {"root": top})
        for path in self._named(top, catalog, "child"):
            if isinstance(path, str):
                yield path
            else:
                yield from self._collection(path)
        yield from self._unnamed()

    def _collection(self, path: Path) -> Iterator[str]:
        if path in self._collections:
            yield self._short(f"{path} is named twice")
            return
        self._collections.add(path)
        try:
            collection = read_stac(path, "Collection")
        except StoreError as error:
            yield self._short(str(error))
            return
        if collection["id"] != path.parent.name:
            yield self._short(f"{path} has the id {collection['id']}, not that of its folder")
        top = self._root / CATALOG_FILE
        yield from self._upwards(path, collection, {"root": top, "parent": top})
        for key, asset in collection.get("assets", {}).items():
            yield from self._asset(path, key, asset)
        ids: dict[str, Path] = {}
        for one in self._named(path, collection, "item"):
            if isinstance(one, str):
                yield one
            else:
                yield from self._item(one, path, ids)

    def _item(self, path: Path, collection: Path, ids: dict[str, Path]) -> Iterator[str]:
        if path in self._items:
            yield self._short(f"{path} is named twice")
            return
        self._items.add(path)
        try:
            item = read_stac(path, "Feature")
        except StoreError as error:
            yield self._short(str(error))
            return
        name = collection.parent.name
        if item.get("collection") != name:
            belongs = item.get("collection") or "no collection"
            yield self._short(f"{path} belongs to {belongs}, but {name} names it")
        other = ids.setdefault(item["id"], path)
        if other != path:
            yield self._short(f"{path} has the id {item['id']} of {other}")
        above = {
            "root": self._root / CATALOG_FILE,
            "parent": collection,
            "collection": collection,
        }
        yield from self._upwards(path, item, above)
        for key, asset in item.get("assets", {}).items():
            yield from self._asset(path, key, asset)

    def _asset(self, owner: Path, key: str, asset: Mapping[str, Any]) -> Iterator[str]:
        href = str(asset.get("href"))
        if is_url(href):
            return
        path = _resolve(owner, href)
        if not path.exists():
            yield self._short(f"{owner}: its asset {key} is not there: {href}")
            return
        if path.is_dir():
            return
        size, checksum = asset.get("file:size"), asset.get("file:checksum")
        found = path.stat().st_size
        if size is not None and found != size:
            yield self._short(f"{path} must have {size} bytes, it has {found}")
        elif self._checksums and checksum is not None:
            try:
                digest, _ = measure_file(path)
            except StoreError as error:
                yield self._short(str(error))
                return
            if multihash(digest) != checksum:
                yield self._short(f"{path} is not the file that was published: another checksum")

    def _named(self, path: Path, value: Mapping[str, Any], rel: str) -> Iterator[Path | str]:
        """Where links lead, or what is wrong with them."""
        for link in value["links"]:
            if link["rel"] != rel:
                continue
            found = _resolve(path, link["href"])
            if is_url(link["href"]) or not found.is_relative_to(self._root):
                yield self._short(f"{path} names {link['href']}, which is not in the catalog")
            elif not found.is_file():
                yield self._short(f"{path} names {link['href']}, which is not there")
            else:
                yield found

    def _upwards(
        self, path: Path, value: Mapping[str, Any], above: Mapping[str, Path]
    ) -> Iterator[str]:
        for rel, must in above.items():
            leads = [_resolve(path, link["href"]) for link in value["links"] if link["rel"] == rel]
            if leads != [must]:
                got = ", ".join(str(one) for one in leads) or "nowhere"
                yield self._short(f"{path}: its link {rel} must lead to {must}, it leads to {got}")

    def _unnamed(self) -> Iterator[str]:
        for path in sorted(self._root.glob(f"*/{COLLECTION_FILE}")):
            if path not in self._collections:
                yield self._short(f"{path} is named by no catalog")
        for path in sorted(self._root.glob(f"*/*/*/{ITEM_FILE}")):
            if path not in self._items:
                yield self._short(f"{path} is named by no collection")

    def _short(self, text: str) -> str:
        """With paths told from the root on."""
        return text.replace(f"{self._root}{os.sep}", "")


def _resolve(path: Path, href: str) -> Path:
    return Path(os.path.normpath(path.parent / href))
