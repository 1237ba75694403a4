"""Parts of files by HTTP: range requests, redirects only to where the user allows."""

from __future__ import annotations

import contextlib
import re
import time
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from urllib3 import Timeout
from urllib3.exceptions import HTTPError, SSLError
from urllib3.response import BaseHTTPResponse

from tilemap.errors import SceneError, StoreError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.limits import KIB, Limits
from tilemap.stores.remote.pool import pool
from tilemap.stores.remote.ranges import State, check_same
from tilemap.stores.remote.retry import PassingError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_GONE = frozenset({404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class HttpRanges:
    """Range requests for one file; see ``Ranges``. May be used by several threads.

    Args:
        address: what it is called in messages, and where it is asked for.
        allow: where redirects may lead.
        limits: of each request.
        signed: where it is asked for instead.
        hint: what to do where access is refused.
    """

    def __init__(
        self,
        address: Address,
        allow: AllowList,
        limits: Limits,
        signed: Address | None = None,
        hint: str = "a signed address may have run out",
    ) -> None:
        self._address, self._allow, self._limits, self._hint = address, allow, limits, hint
        self._first = signed or address
        self._at = self._first  # where redirects led to

    def fetch(self, start: int, stop: int, state: State | None) -> tuple[bytes, State]:
        """See ``Ranges``."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if state is not None and state.version.startswith('"'):
            headers["If-Range"] = state.version  # another file is sent whole then, and refused
        with self._open(headers) as answer:
            self._check_partial(answer, state)
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if found is None:
                raise SceneError(f"{self._shown} does not tell how long the file is")
            first, last, size = (int(n) for n in found.groups())
            now = State(size, _version(answer))
            check_same(self._address, state, now)
            if first != start or last != min(stop, size) - 1:
                raise PassingError(f"asked for bytes {start} to {stop - 1}, got {first} to {last}")
            return self._read(answer, last + 1 - first), now

    def whole(self, most: int) -> bytes:
        """A whole small file.

        Args:
            most: bytes it may have.

        Raises:
            SceneError: if it is larger.
        """
        with self._open({}) as answer:
            self._check_encoding(answer)
            told = answer.headers.get("Content-Length", "")
            if told.isdigit() and int(told) > most:
                raise SceneError(f"{self._shown} must be at most {most} bytes, it has {told}")
            data = self._read(answer, most + 1, exactly=int(told) if told.isdigit() else None)
            if len(data) > most:
                raise SceneError(f"{self._shown} must be at most {most} bytes, it is larger")
            return data

    @property
    def _shown(self) -> str:
        return self._address.shown

    @contextlib.contextmanager
    def _open(self, headers: dict[str, str]) -> Any:
        """The answer to a GET, redirects followed, its body not read yet."""
        answer = self._follow({"Accept-Encoding": "identity", "User-Agent": _agent(), **headers})
        try:
            yield answer
        except HTTPError as problem:
            raise PassingError(_reason(problem)) from problem
        finally:
            _drop(answer)

    def _follow(self, headers: dict[str, str]) -> BaseHTTPResponse:
        at = self._at
        for _ in range(self._limits.redirects + 1):
            answer = self._get(at, headers)
            if answer.status in _REDIRECTS:
                at = self._next(at, answer)
                continue
            if answer.status < 300:
                self._at = at
                return answer
            _drop(answer)
            if self._at != self._first and answer.status in _REFUSED | _GONE:
                self._at = self._first  # what it led to has expired: ask where it leads now
                raise PassingError(f"the host answers {answer.status} where it led to")
            raise self._failure(answer)
        raise SceneError(f"{self._shown} redirects more than {self._limits.redirects} times")

    def _next(self, at: Address, answer: BaseHTTPResponse) -> Address:
        _drop(answer)
        target = at.join(answer.headers.get("Location") or "")
        if target.scheme not in ("http", "https"):
            raise SceneError(
                f"{self._shown} redirects to {target.scheme}://, which is not followed"
            )
        if at.scheme == "https" and target.scheme == "http":
            raise SceneError(f"{self._shown} redirects to an address without encryption")
        if not self._allow.allows(target):
            raise SceneError(
                f"{self._shown} redirects to {target.site}, which is not among the hosts that may "
                f"be asked; list {target.site} in `allow_hosts` too if it is to be trusted"
            )
        return target

    def _get(self, at: Address, headers: dict[str, str]) -> BaseHTTPResponse:
        timeout = Timeout(connect=self._limits.connect_s, read=self._limits.silence_s)
        try:
            return pool().http(self._allow).request(
                "GET", at.url, headers=headers, redirect=False, retries=False, timeout=timeout,
                preload_content=False, decode_content=False,
            )  # fmt: skip
        except SSLError as problem:
            raise SceneError(f"{at.site} is not who it says: {_reason(problem)}") from problem
        except HTTPError as problem:
            raise PassingError(_reason(problem)) from problem

    def _failure(self, answer: BaseHTTPResponse) -> Exception:
        status = answer.status
        if status in _PASSING:
            return PassingError(f"the host answers {status}", _after(answer))
        if status in _REFUSED:
            return SceneError(
                f"{self._address.site} refuses {self._shown} ({status}); {self._hint}"
            )
        if status in _GONE:
            return SceneError(f"no such file: {self._shown} ({status})")
        if status == 416:
            return StoreError(f"{self._shown} is empty, or shorter than it was")
        return SceneError(f"{self._shown} cannot be read, the host answers {status}")

    def _check_partial(self, answer: BaseHTTPResponse, state: State | None) -> None:
        self._check_encoding(answer)
        if answer.status == 206:
            return
        told = answer.headers.get("Content-Length", "")
        now = State(int(told) if told.isdigit() else -1, _version(answer))
        if state is not None and now != state:
            raise StoreError(f"{self._shown} has changed since the run was planned")
        raise SceneError(
            f"{self._address.site} does not send parts of files (it answers {answer.status} to a "
            f"range request), so {self._shown} could only be fetched whole; download it first"
        )

    def _check_encoding(self, answer: BaseHTTPResponse) -> None:
        encoding = answer.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", ""):
            raise SceneError(f"{self._shown} is sent {encoding}-encoded, it must be sent as it is")

    def _read(self, answer: BaseHTTPResponse, most: int, exactly: int | None = -1) -> bytes:
        """The body, as long as was asked for.

        Args:
            exactly: bytes it must have, ``most`` if negative; None if that is not known.

        Raises:
            PassingError: if it ends early or takes too long.
        """
        parts, length = [], 0
        end = time.monotonic() + self._limits.request_s
        while length < most:
            part = answer.read1(min(most - length, 256 * KIB))  # what has come, not all of it
            if not part:
                break
            parts.append(part)
            length += len(part)
            if time.monotonic() > end:
                raise PassingError(f"{length} bytes came in {self._limits.request_s:g} s")
        wanted = most if exactly is not None and exactly < 0 else exactly
        if wanted is not None and length != wanted:
            raise PassingError(f"{length} of {wanted} bytes came")
        return b"".join(parts)


def _drop(answer: BaseHTTPResponse) -> None:
    """Give the connection back; closed, if the body was not read to its end."""
    answer.close()
    answer.release_conn()


def _version(answer: BaseHTTPResponse) -> str:
    return str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")


def _after(answer: BaseHTTPResponse) -> float | None:
    """Seconds of ``Retry-After``, which may be a date."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text[:9])
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _reason(problem: BaseException) -> str:
    """What went wrong with a connection, without the address, which may hold a secret."""
    inner = problem.args[-1] if problem.args else problem
    text = re.sub(r"<[^>]*>:? ?|\S*://\S+|\S*\?\S+", "", str(inner))
    name = type(problem).__name__.removesuffix("Error")
    return " ".join(text.split())[:160].rstrip(".") or name


@cache
def _agent() -> str:
    try:
        return f"tilemap/{version('tilemap')}"
    except PackageNotFoundError:
        return "tilemap"
