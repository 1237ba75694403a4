"""Reading a remote file in few requests: ranges merged, small reads in blocks, both kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilemap.errors import StoreError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.limits import LIMITS, Limits
from tilemap.stores.remote.pool import pool
from tilemap.stores.remote.ranges import Ranges, State, ranges_of
from tilemap.stores.remote.retry import persist

Span = tuple[int, int]
"""First byte, and the byte behind the last."""


def merge(ranges: Sequence[Span], gap: int, longest: int) -> list[Span]:
    """The requests that fetch all ranges: neighbours together, none of them too long.

    Args:
        ranges: in any order; they may overlap.
        gap: bytes between two ranges that are fetched along.
        longest: bytes of one request; a single range that is longer is cut.

    >>> merge([(0, 10), (12, 20), (50, 60), (60, 90)], gap=2, longest=40)
    [(0, 20), (50, 90)]
    >>> merge([(0, 100)], gap=0, longest=40)
    [(0, 40), (40, 80), (80, 100)]
    """
    runs: list[Span] = []
    for start, stop in sorted(r for r in ranges if r[0] < r[1]):
        if runs and start <= runs[-1][1] + gap:
            runs[-1] = (runs[-1][0], max(runs[-1][1], stop))
        else:
            runs.append((start, stop))
    return [
        (at, min(at + longest, stop)) for start, stop in runs for at in range(start, stop, longest)
    ]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as it was found: enough to read it elsewhere and to notice that it has changed.

    Args:
        address: where.
        allow: what may be asked, redirects included.
        state: how it was.
    """

    address: Address
    allow: AllowList
    state: State


class RemoteReader:
    """One open remote file, for one thread.

    Args:
        file: what to read.
        limits: of requests and of what is kept.
        ranges: what asks for its parts; made where it is not given.
    """

    def __init__(
        self, file: RemoteFile, limits: Limits = LIMITS, ranges: Ranges | None = None
    ) -> None:
        self.file, self._limits = file, limits
        self._ranges: Ranges = ranges or ranges_of(file.address, file.allow, limits)
        self._cache = pool().cache

    @classmethod
    def find(cls, address: Address, allow: AllowList, limits: Limits = LIMITS) -> RemoteReader:
        """Ask for the first bytes of a file, which tells all that must be known of it.

        Raises:
            SceneError: if it may not be asked, is not there, or cannot be read in parts.
            StoreError: if the host cannot be reached.
        """
        ranges = ranges_of(address, allow, limits)
        data, state = persist(
            lambda: ranges.fetch(0, limits.first, None), f"read {address.shown}", limits
        )
        reader = cls(RemoteFile(address, allow, state), limits, ranges)
        side = limits.block
        for at in range(0, len(data), side):
            block = (at, min(at + side, state.size))
            if block[1] <= len(data):
                reader._cache.put((reader.file, block), data[at : block[1]])
        return reader

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.state.size

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop - 1``, cut at the end of the file; for headers and the like.

        Raises:
            StoreError: if they cannot be had, or the file has changed.
        """
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        side = self._limits.block
        first = start // side * side
        blocks = [(at, min(at + side, self.size)) for at in range(first, stop, side)]
        return b"".join(self.read_many(blocks))[start - first : stop - first]

    def read_many(self, ranges: Sequence[Span]) -> list[bytes]:
        """The bytes of each range, all of it inside the file.

        Raises:
            StoreError: if they cannot be had, or the file has changed.
        """
        found = {span: self._cache.get((self.file, span)) for span in ranges}
        missing = [span for span, data in found.items() if data is None]
        spans = merge(missing, self._limits.gap, self._limits.longest)
        fetched = dict(zip(spans, self._fetch(spans), strict=True))
        for start, stop in missing:
            data = _cut(fetched, start, stop)
            self._cache.put((self.file, (start, stop)), data)
            found[start, stop] = data
        return [found[span] or b"" for span in ranges]

    def _fetch(self, spans: Sequence[Span]) -> list[bytes]:
        """Each span, some of them at a time."""
        found: list[bytes] = []
        for first in range(0, len(spans), self._limits.together):
            batch = spans[first : first + self._limits.together]
            if len(batch) == 1:
                found.append(self._fetch_one(batch[0]))
            else:
                found += pool().threads.map(self._fetch_one, batch)
        return found

    def _fetch_one(self, span: Span) -> bytes:
        start, stop = span
        if stop > self.size:
            raise StoreError(
                f"{self.file.address.shown} is truncated: it has {self.size} bytes, but something "
                f"in it ends at byte {stop}"
            )
        data, _ = persist(
            lambda: self._ranges.fetch(start, stop, self.file.state),
            f"read {self.file.address.shown}",
            self._limits,
        )
        return data


def _cut(fetched: dict[Span, bytes], start: int, stop: int) -> bytes:
    """One range out of the spans that hold it, which are in order."""
    parts = [
        data[max(start - first, 0) : stop - first]
        for (first, last), data in fetched.items()
        if first < stop and start < last
    ]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def fetch_whole(address: Address, allow: AllowList, most: int, limits: Limits = LIMITS) -> bytes:
    """A small file as a whole.

    Args:
        most: bytes it may have.

    Raises:
        SceneError: if it may not be asked, is not there, or is larger.
        StoreError: if it cannot be had.
    """
    ranges = ranges_of(address, allow, limits)
    return persist(lambda: ranges.whole(most), f"read {address.shown}", limits)
