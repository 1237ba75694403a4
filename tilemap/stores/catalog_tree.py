"""The files of a catalog: written so that a reader never sees half of it, read, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilemap.errors import StoreError
from tilemap.files import read_json, storing
from tilemap.stores.catalog import CATALOG_FILE, COLLECTION_FILE, Member, check_name
from tilemap.stores.sidecars import write_bytes
from tilemap.stores.stac_item import json_text
from tilemap.stores.stac_links import is_url

Json = dict[str, Any]


@dataclass(frozen=True)
class TreeChange:
    """What ``write_tree`` did; false if nothing.

    Args:
        written: files that are new or have other bytes now.
        removed: collections that are no longer named.
    """

    written: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)


@dataclass(frozen=True)
class Tree:
    """A catalog as it lies on disk.

    Args:
        catalog: contents of ``catalog.json``.
        collections: by id, in the order of the catalog.
        members: items by the id of their collection, in its order.
    """

    catalog: Json
    collections: dict[str, Json] = field(default_factory=dict)
    members: dict[str, tuple[Member, ...]] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Member, ...]:
        """All items."""
        return tuple(one for members in self.members.values() for one in members)


def write_tree(
    root: Path,
    catalog: Mapping[str, Any],
    collections: Iterable[Mapping[str, Any]],
    guard: Callable[[], None] | None = None,
) -> TreeChange:
    """Publish collections and their catalog; the items must lie there already.

    Each file is replaced by one rename after its bytes are on the disk: collections first, then
    the catalog, then collections that it names no longer are removed. So at any moment, and after
    a crash at any moment, every link leads to a whole file. A file whose bytes would be the same
    is not touched.

    Args:
        root: made if it is not there.
        catalog: as ``build_catalog`` makes it of the collections.
        collections: as ``build_collection`` makes them.
        guard: called before each file is replaced or removed; raises where nothing may be
            published any more.

    Raises:
        StoreError: if the catalog names others than these collections, an item is not there, or a
            file cannot be written; what was replaced before stays.
    """
    given = sorted(collections, key=lambda one: str(one["id"]))
    _check_links(root, catalog, given)
    check = guard or (lambda: None)
    written: list[Path] = []
    contents = [(root / check_name(one["id"]) / COLLECTION_FILE, one) for one in given]
    for path, value in [*contents, (root / CATALOG_FILE, catalog)]:
        if _replace(path, json_text(value).encode(), check):
            written.append(path)
    removed = _remove_others(root, {path for path, _ in contents}, check)
    return TreeChange(tuple(written), removed)


def _check_links(
    root: Path, catalog: Mapping[str, Any], collections: Iterable[Mapping[str, Any]]
) -> None:
    ids = [str(one["id"]) for one in collections]
    named = [Path(link["href"]).parent.name for link in _links(catalog, "child")]
    if sorted(named) != ids:
        raise StoreError(
            f"the catalog must name the collections that are given, it names "
            f"{', '.join(named) or 'none'}; given: {', '.join(ids) or 'none'}"
        )
    for one in collections:
        for link in _links(one, "item"):
            path = _inside(root, root / one["id"], link["href"])
            if not path.is_file():
                raise StoreError(f"{path} must be there before the catalog names it")


def _links(value: Mapping[str, Any], rel: str) -> Iterator[Mapping[str, Any]]:
    return (link for link in value["links"] if link["rel"] == rel)


def _inside(root: Path, folder: Path, href: str) -> Path:
    """Where a link of a file in ``folder`` leads.

    Raises:
        StoreError: if that is not below the root.
    """
    path = Path(os.path.normpath(folder.absolute() / href))
    if is_url(href) or not path.is_relative_to(os.path.normpath(root.absolute())):
        raise StoreError(f"links of a catalog must stay in {root}, got {href} in {folder}")
    return path


def _replace(path: Path, content: bytes, guard: Callable[[], None]) -> bool:
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    guard()
    with storing(f"cannot write {path}"):
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            _sync(path.parent.parent)
        write_bytes(path, content)
        _sync(path.parent)
    return True


def _remove_others(root: Path, named: set[Path], guard: Callable[[], None]) -> tuple[Path, ...]:
    """Collections that nobody names, and what a crash left of writing."""
    removed = []
    try:
        for path in sorted(root.glob(f"*/{COLLECTION_FILE}")):
            if path not in named:
                guard()
                path.unlink()
                _sync(path.parent)
                removed.append(path)
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()
        for pattern in (f"{CATALOG_FILE}.partial", f"*/{COLLECTION_FILE}.partial"):
            for path in root.glob(pattern):
                guard()
                path.unlink()
    except OSError as error:
        raise StoreError(f"cannot remove from {root}: {error.strerror or error}") from error
    return tuple(removed)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_tree(root: Path) -> Tree:
    """The catalog, its collections and their items.

    Raises:
        StoreError: if a file that is named is missing, no JSON of its kind, or outside the root.
    """
    catalog = read_stac(root / CATALOG_FILE, "Catalog")
    collections, members = {}, {}
    for child in _links(catalog, "child"):
        path = _inside(root, root, child["href"])
        collection = read_stac(path, "Collection")
        collections[collection["id"]] = collection
        paths = [_inside(root, path.parent, link["href"]) for link in _links(collection, "item")]
        start = os.path.normpath(root.absolute())
        members[collection["id"]] = tuple(
            Member(read_stac(one, "Feature"), one.relative_to(start).as_posix()) for one in paths
        )
    return Tree(catalog, collections, members)


def read_stac(path: Path, kind: str) -> Json:
    """One file of a catalog.

    Args:
        path: of the file.
        kind: its ``type``: "Catalog", "Collection" or "Feature".

    Raises:
        StoreError: if it is missing, or no such file.
    """
    if not path.exists():
        raise StoreError(f"{path} is not there")
    value = read_json(path)
    if not isinstance(value, dict) or value.get("type") != kind or not _has_links(value):
        got = value.get("type") if isinstance(value, dict) else type(value).__name__
        raise StoreError(f"{path} must be a STAC {kind} with links, its type is {got}")
    return value


def _has_links(value: Json) -> bool:
    links = value.get("links")
    return (
        isinstance(value.get("id"), str)
        and isinstance(links, list)
        and all(
            isinstance(link, dict)
            and isinstance(link.get("href"), str)
            and isinstance(link.get("rel"), str)
            for link in links
        )
    )
