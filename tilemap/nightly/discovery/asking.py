"""Asking hosts for small files: only those that are listed, three times, and not for ever."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from tilemap.errors import SceneError, StoreError, TilemapError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.blocks import RemoteReader, fetch_whole
from tilemap.stores.remote.limits import MIB, Limits
from tilemap.stores.remote.pool import pool
from tilemap.stores.remote.ranges import State
from tilemap.stores.remote.retry import PassingError, persist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import BaseHTTPResponse

LIMITS = Limits(attempts=3, wait_s=0.5, longest_wait_s=10.0, silence_s=30.0, request_s=60.0)
TOTAL_S = 600.0
"""Seconds that one area may take to ask."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOGETHER = 64


@dataclass
class Asker:
    """What is asked for one area.

    Args:
        allow: hosts that may be asked.
        limits: of one request.
        total_s: seconds for all of them.
        most: bytes of one answer.
    """

    allow: AllowList
    limits: Limits = LIMITS
    total_s: float = TOTAL_S
    most: int = 64 * MIB
    _begun: float = field(default_factory=time.monotonic)

    def get(self, address: Address) -> bytes:
        """A file.

        Raises:
            SceneError: if it may not be asked, or is not there.
            StoreError: if it cannot be had, or the time is over.
            UnavailableError: if a package is missing.
        """
        self.check(address)
        return fetch_whole(address, self.allow, self.most, self._left())

    def get_many(self, addresses: Sequence[Address]) -> Iterator[bytes | TilemapError]:
        """Files, some at a time, in order; an error for one that cannot be had."""
        for first in range(0, len(addresses), _TOGETHER):
            self._left()
            yield from pool().threads.map(self._try, addresses[first : first + _TOGETHER])

    def post(self, address: Address, body: bytes) -> bytes:
        """The answer to a JSON body; raises as ``get``."""
        self.check(address)
        limits = self._left()
        return persist(lambda: self._post(address, body, limits), f"search {address.shown}", limits)

    def state(self, address: Address) -> State:
        """Size and version of a file that can be read in parts; raises as ``get``."""
        self.check(address)
        limits = replace(self._left(), first=1)
        return RemoteReader.find(address, self.allow, limits).file.state

    def check(self, address: Address) -> None:
        """Refuse a host that is not listed.

        Raises:
            SceneError: naming it.
        """
        if not self.allow.allows(address):
            raise SceneError(f"{address.site} may not be asked: remote.allow_hosts must list it")

    def _try(self, address: Address) -> bytes | TilemapError:
        try:
            return self.get(address)
        except TilemapError as problem:
            return problem

    def _left(self) -> Limits:
        """Limits of the next request: none takes longer than there is time."""
        left = self._begun + self.total_s - time.monotonic()
        if left <= 0:
            raise StoreError(f"not all could be read in {self.total_s:g} s")
        return replace(
            self.limits,
            connect_s=min(self.limits.connect_s, left),
            silence_s=min(self.limits.silence_s, left),
            request_s=min(self.limits.request_s, left),
        )

    def _post(self, address: Address, body: bytes, limits: Limits) -> bytes:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/geo+json, application/json",
            "Accept-Encoding": "identity",
        }
        with _passing():
            answer = pool().http(self.allow).request(
                "POST", address.url, body=body, headers=headers, redirect=False, retries=False,
                timeout=Timeout(connect=limits.connect_s, read=limits.silence_s),
                preload_content=False, decode_content=False,
            )  # fmt: skip
            try:
                if answer.status < 300:
                    return self._body(answer, self.most, limits)
                if answer.status in _PASSING:
                    raise PassingError(f"the host answers {answer.status}", _after(answer))
                if answer.status < 400:
                    raise SceneError(f"{address.shown} redirects a search, which is not followed")
                said = self._body(answer, 4096, limits, cut=True).decode(errors="replace")
                raise SceneError(
                    f"{address.shown} answers {answer.status}: {' '.join(said.split())[:200]}"
                )
            finally:
                answer.close()
                answer.release_conn()

    @staticmethod
    def _body(answer: BaseHTTPResponse, most: int, limits: Limits, cut: bool = False) -> bytes:
        parts, length = [], 0
        end = time.monotonic() + limits.request_s
        while part := answer.read1(256 * 1024):
            parts.append(part)
            length += len(part)
            if length > most:
                if cut:
                    break
                raise SceneError(f"the answer to a search must be at most {most} bytes")
            if time.monotonic() > end:
                raise PassingError(f"{length} bytes came in {limits.request_s:g} s")
        told = answer.headers.get("Content-Length", "")
        if not cut and told.isdigit() and int(told) != length:
            raise PassingError(f"{length} of {told} bytes came")
        return b"".join(parts)


@contextmanager
def _passing() -> Iterator[None]:
    try:
        yield
    except HTTPError as problem:
        raise PassingError(_reason(problem)) from problem


def _reason(problem: HTTPError) -> str:
    """What went wrong with a connection, without the address, which may hold a secret."""
    inner = problem.args[-1] if problem.args else problem
    text = " ".join(re.sub(r"<[^>]*>:? ?|\S*://\S+|\S*\?\S+", "", str(inner)).split())
    return text[:160].rstrip(".") or type(problem).__name__


def _after(answer: BaseHTTPResponse) -> float | None:
    text = answer.headers.get("Retry-After", "").strip()
    return float(text[:9]) if text.isdigit() else None


def told(problem: TilemapError) -> str:
    """An error of one source, of which the next pass asks again."""
    return str(problem).removesuffix("; the same command continues")
