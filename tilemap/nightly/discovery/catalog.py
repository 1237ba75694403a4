"""A static STAC catalog, walked from its root: plain JSON and links, on disk or elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilemap.errors import SceneError, TilemapError
from tilemap.files import read_file
from tilemap.nightly.discovery.asking import Asker, told
from tilemap.nightly.discovery.items import LARGEST, Json, is_item, local_path, parse_json
from tilemap.nightly.discovery.notes import Notes
from tilemap.stores.remote.address import Address, is_address

_TYPES = ("Catalog", "Collection")


@dataclass(frozen=True, slots=True)
class Located:
    """An item and where it is.

    Args:
        place: path, or address.
        item: its content.
    """

    place: str
    item: Json = field(repr=False)

    @property
    def remote(self) -> bool:
        """Whether it is not on this disk."""
        return is_address(self.place)


def walk(start: str, collections: Sequence[str], asker: Asker, notes: Notes) -> Iterator[Located]:
    """Each item of a catalog once, however many links lead to it.

    Args:
        start: path or address of ``catalog.json``, ``collection.json`` or an item.
        collections: ids of those whose items are wanted; empty for all.
        asker: what asks hosts.
        notes: told what cannot be read; the rest goes on.

    Raises:
        TilemapError: if the start cannot be read, or the time is over.
    """
    begin = Address.parse(start).url if is_address(start) else os.path.normpath(start)
    content = _parsed(begin, _read(begin, asker))
    if is_item(content):
        yield Located(begin, content)
        return
    if content.get("type") not in _TYPES:
        raise SceneError(f"{begin} must be a STAC catalog, collection or item")
    seen, stack = {begin}, [(begin, content)]
    while stack:
        place, content = stack.pop()
        wanted = not collections or content["type"] == "Catalog" or content.get("id") in collections
        links = {rel: list(_links(place, content, rel, seen, notes)) for rel in ("child", "item")}
        for child, found in _read_all([*links["child"], *(links["item"] * wanted)], asker, notes):
            if is_item(found):
                if not collections or found.get("collection") in collections:
                    yield Located(child, found)
            elif found.get("type") in _TYPES and isinstance(found.get("id"), str):
                stack.append((child, found))
            else:
                notes.count(child, "link", "to something that is no catalog and no item")


def _links(
    place: str, content: dict[str, Any], rel: str, seen: set[str], notes: Notes
) -> Iterator[str]:
    links = content.get("links")
    for link in links if isinstance(links, list) else ():
        href = link.get("href") if isinstance(link, dict) and link.get("rel") == rel else None
        if not isinstance(href, str):
            continue
        try:
            target = resolve(href, place)
        except SceneError as problem:
            notes.count(place, "catalog", "with a link that is not followed", told(problem))
            continue
        if target not in seen:
            seen.add(target)
            yield target


def resolve(href: str, place: str) -> str:
    """Where a link leads.

    Args:
        href: as it stands in a file.
        place: path or address of the file; nothing that came through the network leads to this
            disk.

    Raises:
        SceneError: if it leads nowhere that can be read.
    """
    if is_address(place):
        return Address.parse(place).join(href).url
    if is_address(href) and not href.lower().startswith("file:"):
        return Address.parse(href).url
    path = local_path(href, place.rpartition("/")[0])
    if path is None:
        raise SceneError(f"not an address: {href[:120]!r}")
    return path


def _read_all(
    places: Sequence[str], asker: Asker, notes: Notes
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What can be read of these, those on this disk first."""
    for place in places:
        if not is_address(place):
            try:
                yield place, _parsed(place, _read(place, asker))
            except TilemapError as problem:
                notes.count(place, "part", "of the catalog cannot be read", told(problem))
    remote = [place for place in places if is_address(place)]
    answers = asker.get_many([Address.parse(place) for place in remote])
    for place, answer in zip(remote, answers, strict=True):
        try:
            if isinstance(answer, TilemapError):
                raise answer
            yield place, _parsed(place, answer)
        except TilemapError as problem:
            notes.count(place, "part", "of the catalog cannot be read", told(problem))


def _read(place: str, asker: Asker) -> bytes:
    if is_address(place):
        return asker.get(Address.parse(place))
    try:
        if Path(place).stat().st_size > LARGEST:
            raise SceneError(f"{place} must be at most 16 MiB")
        return read_file(place)
    except OSError as problem:
        raise SceneError(f"{place} cannot be read: {problem.strerror}") from problem


def _parsed(place: str, content: bytes) -> dict[str, Any]:
    found = parse_json(content, place)
    if not isinstance(found, dict):
        raise SceneError(f"{place} must be a STAC catalog, collection or item")
    return found
