"""A remote file as bytes between two positions, the same for HTTP and for S3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tilemap.errors import StoreError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.limits import LIMITS, Limits


@dataclass(frozen=True, slots=True)
class State:
    """By what a file is known to be the same as before.

    Args:
        size: in bytes.
        version: its ETag, else when it was modified; empty where the server tells neither.
    """

    size: int
    version: str


class Ranges(Protocol):
    """Requests for one file."""

    def fetch(self, start: int, stop: int, state: State | None) -> tuple[bytes, State]:
        """Bytes ``start`` to ``stop - 1``, cut at the end of the file, and how the file is now.

        Args:
            start: of the first byte.
            stop: behind the last byte, larger than ``start``.
            state: how the file must be; None at the first request.

        Raises:
            PassingError: for what may go well the next time.
            SceneError: if it may not be asked, is not there, or cannot be read in parts.
        """
        ...

    def whole(self, most: int) -> bytes:
        """A small file as a whole.

        Args:
            most: bytes it may have.

        Raises:
            PassingError: for what may go well the next time.
            SceneError: if it may not be asked, is not there, or is larger.
        """
        ...


def ranges_of(address: Address, allow: AllowList, limits: Limits = LIMITS) -> Ranges:
    """What asks for the parts of a file; asks nothing yet.

    Raises:
        SceneError: if its host is not listed.
        UnavailableError: if a package is missing.
    """
    allow.check(address)
    if address.scheme == "s3":
        from tilemap.stores.remote.s3 import S3Ranges

        return S3Ranges(address, allow, limits)
    from tilemap.stores.remote.http import HttpRanges

    return HttpRanges(address, allow, limits)


def check_same(address: Address, before: State | None, now: State) -> None:
    """A file must not change while it is read: its parts would not belong together.

    Raises:
        StoreError: if it has.
    """
    if before is not None and before != now:
        raise StoreError(
            f"{address.shown} has changed since the run was planned: it had {before.size} bytes "
            f"({before.version or 'no version'}), now {now.size} ({now.version or 'no version'})"
        )
