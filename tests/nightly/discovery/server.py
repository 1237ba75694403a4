"""A host on loopback: files of a static catalog, or a STAC API with pages and faults."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

CORE = "https://api.stacspec.org/v1.0.0"
ALL = (
    f"{CORE}/core",
    f"{CORE}/item-search",
    f"{CORE}/item-search#sort",
    f"{CORE}/item-search#query",
)


@dataclass
class Asked:
    """One request.

    Args:
        method: of it.
        path: with query.
        body: JSON of a POST.
        range: first and last byte, if only a part is wanted.
    """

    method: str
    path: str
    body: Any = None
    range: tuple[int, int] | None = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no matter."""


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Host:
    """A server; ``files`` by path, ``before`` may answer instead of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    before: Callable[[Asked], Answer | None] = lambda _: None
    search: Callable[[Asked], Answer] | None = None

    def __enter__(self) -> Self:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                part = self.headers.get("Range", "").removeprefix("bytes=")
                first, dash, last = part.partition("-")
                span = (int(first), int(last)) if dash else None
                host._serve(self, Asked("GET", self.path, range=span))

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                body = json.loads(self.rfile.read(length))
                host._serve(self, Asked("POST", self.path, body))

            def log_message(self, *_: Any) -> None:
                pass

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def site(self) -> str:
        """As an allow-list names it."""
        return f"127.0.0.1:{self._http.server_port}"

    def url(self, path: str = "/") -> str:
        """Address of a path."""
        return f"http://{self.site}{path}"

    def _serve(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        self.asked.append(asked)
        status, headers, body = self._answer(asked)
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        pause = float(headers.get("X-Pause", "0"))  # before each byte
        handler.close_connection = "Content-Length" in headers  # which then is a lie
        for number in range(len(body) if pause else 1):
            time.sleep(pause)
            handler.wfile.write(body[number : number + 1] if pause else body)

    def _answer(self, asked: Asked) -> Answer:
        instead = self.before(asked)
        if instead is not None:
            return instead
        path = urlsplit(asked.path).path
        if path == "/search" and self.search is not None:
            return self.search(asked)
        if path in self.files and asked.method == "GET":
            content = self.files[path]
            if asked.range is None:
                return 200, {"Content-Type": "application/json"}, content
            part = content[asked.range[0] : asked.range[1] + 1]
            span = f"bytes {asked.range[0]}-{asked.range[0] + len(part) - 1}/{len(content)}"
            etag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
            return 206, {"Content-Range": span, "ETag": etag}, part
        return 404, {}, b"nothing here"


def ok(content: Any) -> Answer:
    """JSON."""
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def hang(seconds: float) -> Answer:
    """An answer that comes too late."""
    time.sleep(seconds)
    return ok({})


def remote_item(
    number: int, host: Host, collection: str = "s2", **properties: Any
) -> dict[str, Any]:
    """An item of an API, of one day for each number, its asset behind a signed address."""
    day = 1 + number % 28
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"S2_{number:04d}",
        "collection": collection,
        "geometry": None,
        "bbox": [10, 50, 11, 51],
        "links": [
            {"rel": "self", "href": host.url(f"/collections/{collection}/items/S2_{number:04d}")}
        ],
        "properties": {"datetime": f"2024-03-{day:02d}T10:00:00Z", **properties},
        "assets": {
            "red": {
                "href": f"https://blobs.example.org/S2_{number:04d}/red.tif?sig={time.monotonic_ns()}",
                "file:size": 100 + number,
                "file:checksum": "1220aa",
            }
        },
    }


def serve_api(
    host: Host, items: list[dict[str, Any]], conforms: tuple[str, ...] = ALL, page: int = 3,
    methods: tuple[str, ...] = ("GET", "POST"),
) -> None:  # fmt: skip
    """Make a host a STAC API that honours collections, days, order, query and pages."""
    root = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "of a test",
        "conformsTo": list(conforms),
        "links": [
            {"rel": "self", "href": host.url("/")},
            {"rel": "root", "href": host.url("/")},
            *({"rel": "search", "type": "application/geo+json", "method": method,
               "href": host.url("/search")} for method in methods),
        ],
    }  # fmt: skip
    host.files["/"] = json.dumps(root).encode()

    def search(asked: Asked) -> Answer:
        if asked.method not in methods:
            return 405, {}, b""
        given = asked.body
        if asked.method == "GET":
            given = {key: value[0] for key, value in parse_qs(urlsplit(asked.path).query).items()}
            given["collections"] = given["collections"].split(",")
        found = [item for item in items if item["collection"] in given["collections"]]
        if "datetime" in given:
            since, until = given["datetime"].split("/")
            found = [
                item for item in found
                if (since == ".." or item["properties"]["datetime"] >= since)
                and (until == ".." or item["properties"]["datetime"] <= until)
            ]  # fmt: skip
        if "sortby" in given and f"{CORE}/item-search#sort" in conforms:
            found.sort(key=lambda item: str(item["properties"]["datetime"]), reverse=True)
        if "query" in given:
            wanted = given["query"]
            wanted = json.loads(wanted) if isinstance(wanted, str) else wanted
            for name, rule in wanted.items():
                found = [item for item in found if item["properties"][name] < rule["lt"]]
        first = int(given.get("token", 0))
        answer: dict[str, Any] = {
            "type": "FeatureCollection", "features": found[first : first + page], "links": [],
        }  # fmt: skip
        if first + page < len(found):
            link: dict[str, Any] = {"rel": "next", "href": host.url("/search")}
            if asked.method == "POST":
                link |= {"method": "POST", "body": {**given, "token": first + page}}
            else:
                query = asked.path.partition("?")[2].partition("&token=")[0]
                link["href"] += f"?{query}&token={first + page}"
            answer["links"].append(link)
        return ok(answer)

    host.search = search
