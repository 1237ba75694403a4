"""What a pass needs of a STAC item, from its JSON alone: its day, its rasters, what they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from tilemap.errors import SceneError
from tilemap.files import decode_json
from tilemap.nightly.discovery.naming import RASTERS

LARGEST = 16 * 2**20
"""Bytes of an item; a larger file is none."""
_NOT_DATA = frozenset({"thumbnail", "overview", "visual", "metadata", "saturation", "cloud"})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Raster:
    """A raster of an item.

    Args:
        href: as the item has it.
        size: in bytes, if the item says.
        checksum: of its content, if the item says.
    """

    href: str
    size: int | None
    checksum: str | None


def parse_json(content: bytes, place: str) -> Any:
    """Decode what is at a place.

    Raises:
        SceneError: if it is no JSON.
    """
    try:
        return decode_json(content)
    except ValueError as problem:
        raise SceneError(f"{place} cannot be read as JSON: {problem}") from None


def is_item(content: object) -> bool:
    """Whether something is a STAC item, and no other GeoJSON."""
    return (
        isinstance(content, dict)
        and content.get("type") == "Feature"
        and isinstance(content.get("stac_version"), str)
        and isinstance(content.get("assets"), dict)
        and isinstance(content.get("properties"), dict)
    )


def is_product(item: Json) -> bool:
    """Whether tilemap has made what an item describes."""
    software = item["properties"].get("processing:software")
    return isinstance(software, dict) and "tilemap" in software


def day_of_item(item: Json) -> date | None:
    """The day, UTC, of an item's moment or of its begin."""
    moment = moment_of(item["properties"].get("datetime"))
    moment = moment or moment_of(item["properties"].get("start_datetime"))
    return None if moment is None else moment.date()


def moment_of(text: object) -> datetime | None:
    """A moment as STAC writes it, in UTC; None if it is none."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def rasters_of(item: Json) -> tuple[Raster, ...]:
    """The rasters that are read of an item: those that are data, else all."""
    rasters, data = [], []
    for asset in item["assets"].values():
        href = asset.get("href") if isinstance(asset, dict) else None
        if not isinstance(href, str) or not path_of(href).lower().endswith(RASTERS):
            continue
        size, checksum = asset.get("file:size"), asset.get("file:checksum")
        raster = Raster(
            href,
            size if isinstance(size, int) else None,
            checksum if isinstance(checksum, str) else None,
        )
        rasters.append(raster)
        roles = asset.get("roles")
        if not (isinstance(roles, list) and _NOT_DATA & {str(role) for role in roles}):
            data.append(raster)
    return tuple(data or rasters)


def path_of(href: str) -> str:
    """The path of an address, without query and fragment."""
    try:
        return urlsplit(href).path
    except ValueError:
        return ""


def local_path(href: str, folder: str) -> str | None:
    """The file that an address in a folder's file leads to; None if it leads elsewhere."""
    if href.startswith("/vsi"):
        return None
    if not _SCHEME.match(href):
        return os.path.normpath(href if href.startswith("/") else f"{folder}/{href}")
    try:
        parts = urlsplit(href)
    except ValueError:
        return None
    if parts.scheme.lower() == "file" and parts.netloc in ("", "localhost"):
        return os.path.normpath(unquote(parts.path))
    return None


def remote_record(raster: Raster, item: Json, address: str | None = None) -> dict[str, Any]:
    """What a raster elsewhere is known by: an address without its query, which may be signed anew.

    Args:
        raster: of the item.
        item: that names it.
        address: of the raster, where its href is relative.
    """
    name = re.split(r"[?#]", address or raster.href, maxsplit=1)[0]
    updated = item["properties"].get("updated")
    told = {"size": raster.size, "checksum": raster.checksum, "updated": updated}
    return {"name": name, **{k: v for k, v in told.items() if isinstance(v, str | int)}}


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda one, two: one == two,
    "neq": lambda one, two: one != two,
    "lt": lambda one, two: one < two,
    "lte": lambda one, two: one <= two,
    "gt": lambda one, two: one > two,
    "gte": lambda one, two: one >= two,
    "in": lambda one, two: one in two,
    "startsWith": lambda one, two: one.startswith(two),
    "endsWith": lambda one, two: one.endswith(two),
    "contains": lambda one, two: two in one,
}
"""Of the API's query extension."""


def unknown_operators(query: Json) -> list[str]:
    """Operators of a query that there are not; for a message."""
    parts = [(name, given) for name, given in query.items()]
    odd = [name for name, given in parts if not isinstance(given, Mapping)]
    return odd + [
        f"{name}.{operator}"
        for name, given in parts
        if isinstance(given, Mapping)
        for operator in given
        if operator not in _OPERATORS
    ]


def fits_query(item: Json, query: Json) -> bool:
    """Whether an item fits a query, as an API with the query extension has it.

    Args:
        item: of which a property that is not there fits nothing.
        query: operators and what they compare with, by property; all of them known.
    """
    for name, given in query.items():
        value = item["properties"].get(name)
        for operator, wanted in given.items():
            try:
                if value is None or not _OPERATORS[operator](value, wanted):
                    return False
            except (TypeError, AttributeError):
                return False
    return True


def fits_bbox(item: Json, bbox: tuple[float, float, float, float] | None) -> bool:
    """Whether an item's box touches another; one without a box does not.

    Args:
        bbox: west, south, east, north, degrees; west may be larger, across the date line.
    """
    if bbox is None:
        return True
    own = item.get("bbox")
    if not isinstance(own, list) or len(own) not in (4, 6):
        return False
    try:
        west, south = float(own[0]), float(own[1])
        east, north = float(own[len(own) // 2]), float(own[len(own) // 2 + 1])
    except (TypeError, ValueError):
        return False
    if south > bbox[3] or north < bbox[1]:
        return False
    mine, theirs = _spans(west, east), _spans(bbox[0], bbox[2])
    return any(a[0] <= b[1] and b[0] <= a[1] for a in mine for b in theirs)


def _spans(west: float, east: float) -> list[tuple[float, float]]:
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
