"""A host on loopback that sends parts of files, counts what is asked, and fails when told to."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass
class Asked:
    """One request: path with its query, what was asked of it, what was answered."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int
    user: str


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer.

    Args:
        status: answered instead, without a body.
        headers: sent along.
        cut: bytes of the body that come before the connection breaks.
        wait_s: before anything is answered.
        whole: send the whole file, as hosts do that know no ranges.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    wait_s: float = 0.0
    whole: bool = False


class RangeServer:
    """Files by path; ``with RangeServer() as server``.

    ``faults`` are used up from the left, one a request; ``always`` holds for every request to a
    path.

    Args:
        certificate: a PEM file with certificate and key, for https.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: deque[Fault | None] = deque()
        self.always: dict[str, Fault] = {}
        self.etags = True
        self.log: list[Asked] = []
        self.busiest = 0
        self._now = 0
        self._lock = threading.Lock()
        self._etags: dict[int, tuple[str, bytes]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                with outer._counted():
                    outer._answer(self)

            def do_HEAD(self) -> None:
                with outer._counted():
                    outer._answer(self)

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._counted():
                    outer._take(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def host(self) -> str:
        """What ``--allow-host`` is given."""
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        """Address of a file."""
        return f"{self.scheme}://{self.host}/{path}"

    @property
    def bytes(self) -> int:
        """Sent so far."""
        return sum(asked.sent for asked in self.log)

    def _counted(self) -> _Counted:
        return _Counted(self)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.lstrip("/").partition("?")[0]
        with self._lock:
            fault = self.faults.popleft() if self.faults else None
        fault = fault or self.always.get(path) or Fault()
        time.sleep(fault.wait_s)
        asked = handler.headers.get("Range")
        if fault.status:
            self._send(handler, fault.status, b"", dict(fault.headers), asked, None)
            return
        data = self.files.get(path)
        if data is None:
            self._send(handler, 404, b"", {}, asked, None)
            return
        headers = {"Accept-Ranges": "bytes", **fault.headers}
        if self.etags:
            headers.setdefault("ETag", self._etag(data))
        condition = handler.headers.get("If-Range")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
        status = 200
        if found and not fault.whole and condition in (None, headers.get("ETag")):
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            if first >= len(data):
                self._send(handler, 416, b"", headers, asked, None)
                return
            headers.setdefault("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data, status = data[first : last + 1], 206
        self._send(handler, status, data, headers, asked, fault.cut)

    def _etag(self, data: bytes) -> str:
        if id(data) not in self._etags:  # which keeps it, so that no other gets its number
            self._etags[id(data)] = (f'"{hashlib.sha256(data).hexdigest()[:16]}"', data)
        return self._etags[id(data)][0]

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            fault = self.faults.popleft() if self.faults else None
        fault = fault or Fault()
        if not fault.status:
            self.files[handler.path.lstrip("/").partition("?")[0]] = body
        self._send(handler, fault.status or 200, b"", {"ETag": '"1"'}, None, None)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        asked: str | None,
        cut: int | None,
    ) -> None:
        part = body if cut is None else body[:cut]
        entry = Asked(
            handler.command, handler.path, asked, status, 0, handler.headers.get("User-Agent", "")
        )
        with self._lock:
            self.log.append(entry)
        try:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            if handler.command == "HEAD":
                return
            for start in range(0, len(part), 2**16):
                entry.sent += handler.wfile.write(part[start : start + 2**16])
        except OSError:  # the reader has seen enough
            handler.close_connection = True
        if cut is not None:
            handler.close_connection = True


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A reader that hangs up is no news."""


class _Counted:
    """Requests under way at a time."""

    def __init__(self, server: RangeServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        with self._server._lock:
            self._server._now += 1
            self._server.busiest = max(self._server.busiest, self._server._now)

    def __exit__(self, *_: object) -> None:
        with self._server._lock:
            self._server._now -= 1
