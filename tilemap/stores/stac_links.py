"""Links of STAC items: relative to the item, so that whole folders can be moved."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINK_TYPES = {
    ".json": "application/geo+json",
    ".geojson": "application/geo+json",
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".jp2": "image/jp2",
}
"""Of what an item is made of: another item, or a raster."""


def source_links(sources: Mapping[str, str], folder: Path) -> list[dict[str, str]]:
    """``derived_from`` links of an item in ``folder``, from addresses by title."""
    links = []
    for title, href in sources.items():
        link = {"rel": "derived_from", "href": address(href, folder), "title": title}
        kind = LINK_TYPES.get(Path(href).suffix.lower())
        if kind is not None:
            link["type"] = kind
        links.append(link)
    return links


def address(href: str, folder: Path) -> str:
    """A URL as it is; a path relative to the item, spelled as on disk: readers open it as it is."""
    if is_url(href):
        return href
    relative = Path(os.path.relpath(Path(href).absolute(), folder.absolute())).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def is_url(href: str) -> bool:
    """Whether an address has a scheme: it is no path then."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", href) is not None


def with_sources(
    item: Mapping[str, Any], sources: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """The item with other ``derived_from`` links.

    Args:
        item: as ``build_item`` makes it; not changed.
        sources: as for ``ItemFacts``.
        folder: where the item will lie.
    """
    others = [link for link in item["links"] if link["rel"] != "derived_from"]
    return {**item, "links": others + source_links(sources, folder)}


def moved_item(item: Mapping[str, Any], before: Path, after: Path) -> dict[str, Any]:
    """The item as it must be once its folder has moved with all that lies in it.

    What lies in the folder keeps its address; what lies elsewhere is told from the new place.

    Args:
        item: not changed.
        before: folder that its relative addresses start from.
        after: folder that they will start from.
    """

    def moved(entry: Mapping[str, Any]) -> dict[str, Any]:
        href = str(entry["href"])
        path = Path(os.path.normpath(before.absolute() / href))
        if is_url(href) or Path(href).is_absolute() or path.is_relative_to(before.absolute()):
            return dict(entry)
        return {**entry, "href": address(str(path), after)}

    return {
        **item,
        "links": [moved(link) for link in item["links"]],
        "assets": {key: moved(asset) for key, asset in item["assets"].items()},
    }
