"""A STAC API, searched with pystac-client over connections of our own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pystac.link import Link
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.stac_api_io import StacApiIO

from tilemap.errors import SceneError, StoreError
from tilemap.nightly.discovery.asking import Asker
from tilemap.nightly.discovery.items import Json, is_item
from tilemap.nightly.discovery.notes import Notes
from tilemap.stores.remote.address import Address

if TYPE_CHECKING:
    from tilemap.nightly.config import AreaTable, StacTable

PAGE = 250
"""Items asked for at a time; a server may send fewer."""
MOST = 100_000
"""Items taken in at most, of an API that does not sort."""


class AskerIO(StacApiIO):
    """What pystac-client reads, through an ``Asker``: no other host, no file, no end of waiting."""

    def __init__(self, asker: Asker, root: Address) -> None:
        super().__init__(max_retries=None)
        self._asker, self._root = asker, root

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """See ``StacApiIO``; what headers a next link asks for is not sent.

        Raises:
            SceneError, StoreError: see ``Asker``.
        """
        if (method or "GET").upper() == "POST":
            body = json.dumps(parameters or {}).encode()
            return self._asker.post(self._root.join(href), body).decode()
        query = urlencode(parameters or {}, doseq=True)
        if query:
            href = f"{href}{'&' if '?' in href else '?'}{query}"
        return self._asker.get(self._root.join(href)).decode()

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """See ``StacApiIO``, but never a file of this disk."""
        if not isinstance(source, Link):
            Address.parse(str(source))
        return super().read_text(source, *args, **kwargs)


def search(area: AreaTable, table: StacTable, asker: Asker, notes: Notes) -> Iterator[Json]:
    """Items of the area's collections, bounding box and days, in the order of the API.

    A query is sent to an API that says it understands queries; the caller checks it in any case.

    Raises:
        TilemapError: if it cannot be asked, or is no API that can be searched.
    """
    assert table.api is not None
    root = Address.parse(table.api)
    asker.check(root)
    start = root.url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what an API does not advertise; it is looked at here
        client = Client.open(start, stac_io=AskerIO(asker, root))
        if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
            raise SceneError(
                f"{start} must be a STAC API with item search; a static one is given as catalog"
            )
        methods = {
            str(link.extra_fields.get("method") or "GET").upper()
            for link in client.get_links("search")
        }
        sorts = client.conforms_to(ConformanceClasses.SORT)
        queries = bool(table.query) and client.conforms_to(ConformanceClasses.QUERY)
        pages = client.search(
            method="GET" if methods == {"GET"} else "POST",
            collections=list(table.collections),
            limit=PAGE,
            bbox=table.bbox,
            datetime=_days(area),
            query=dict(table.query) if queries else None,
            sortby=[{"field": "properties.datetime", "direction": "desc"}] if sorts else None,
        ).pages_as_dicts()
    enough = table.most + 1 if sorts and (queries or not table.query) else MOST
    seen: set[tuple[str, str]] = set()
    for page in pages:
        before = len(seen)
        for item in page["features"]:
            if not is_item(item):
                notes.count(start, "answer", "that is no STAC item")
                continue
            key = (str(item.get("collection")), str(item.get("id")))
            if key not in seen:
                seen.add(key)
                yield item
            if len(seen) >= enough:
                if enough == MOST:
                    raise StoreError(f"{start} has more than {MOST} items of these")
                return
        if len(seen) == before:
            raise StoreError(f"{start} sends a page with nothing new on it, and no end")


def _days(area: AreaTable) -> str | None:
    if area.since is None and area.until is None:
        return None
    since = f"{area.since.isoformat()}T00:00:00Z" if area.since else ".."
    until = f"{area.until.isoformat()}T23:59:59.999Z" if area.until else ".."
    return f"{since}/{until}"
