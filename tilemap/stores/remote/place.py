"""A folder of a bucket, in the words of a path: where stores and products may lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.errors import OutputError, StoreError, TilemapError
from tilemap.stores.remote.address import NOBODY, Address, AllowList
from tilemap.stores.remote.s3 import CREDENTIALS, load_obstore, open_bucket, reason_of

if TYPE_CHECKING:
    from obstore.store import S3Store

PAGE = 1000
"""Keys of one answer to a listing."""


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """A folder or an object on S3; small, travels to workers, holds no credentials.

    Args:
        address: of scheme s3.
        allow: what may be asked; bucket and endpoint must be among it.
        keys: what lay in the folder when it was listed, relative to it; None if it was not.
    """

    address: Address
    allow: AllowList = NOBODY
    keys: frozenset[str] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(
        cls,
        url: str,
        allow_hosts: AllowList | tuple[str, ...] = (),
        error: type[TilemapError] = OutputError,
    ) -> RemotePlace:
        """From what a user gave; asks nothing.

        Raises:
            error: unless it is an ``s3://`` address whose bucket and endpoint are listed.
            UnavailableError: if obstore is missing.
        """
        allow = allow_hosts if isinstance(allow_hosts, AllowList) else AllowList.of(allow_hosts)
        address = Address.parse(url, error)
        if address.scheme != "s3":
            raise error(f"stores and products go to s3://bucket/folder, got {address.shown}")
        open_bucket(address, allow, error)
        return cls(address, allow)

    def __str__(self) -> str:
        return self.address.shown

    def __truediv__(self, name: str) -> RemotePlace:
        return RemotePlace(self.address.below(name), self.allow)

    @property
    def key(self) -> str:
        """Of the object, or what the keys of the folder begin with, without a slash behind."""
        return self.address.path

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.address.name

    def absolute(self) -> RemotePlace:
        """Itself, as a path would be."""
        return self

    def bucket(self) -> S3Store:
        """The bucket, opened once in a process.

        Raises:
            OutputError: if it may not be asked.
        """
        environment = tuple(sorted(kv for kv in os.environ.items() if kv[0].startswith("AWS_")))
        return _bucket(self.address.host, self.allow, environment)

    def list(self) -> Iterator[tuple[str, int]]:
        """Key and size of every object in the folder.

        Raises:
            OutputError: if it cannot be listed.
        """
        obstore = load_obstore()
        with told(self, "list"):
            for page in obstore.list(self.bucket(), self.key or None, chunk_size=PAGE):
                for one in page:
                    yield one["path"], one["size"]

    def listed(self) -> RemotePlace:
        """The same, with a list of what lies in it now: many questions for the price of one."""
        below = f"{self.key}/"
        return replace(self, keys=frozenset(key.removeprefix(below) for key, _ in self.list()))

    def head(self) -> dict[str, Any] | None:
        """Size, ETag and attributes of an object; None if there is none.

        Raises:
            OutputError: if it cannot be asked.
        """
        obstore = load_obstore()
        with told(self, "look at"):
            try:
                found = obstore.get(self.bucket(), self.key, options={"head": True})
            except FileNotFoundError:
                return None
            return {**found.meta, "attributes": dict(found.attributes)}

    def exists(self) -> bool:
        """Whether there is a finished store, or an object, of this name."""
        return self.head() is not None or (self / "zarr.json").head() is not None

    def read(self) -> bytes:
        """An object as a whole.

        Raises:
            OutputError: if it cannot be had.
        """
        obstore = load_obstore()
        with told(self, "read"):
            return bytes(obstore.get(self.bucket(), self.key).bytes())

    def write(self, data: bytes, attributes: dict[str, str] | None = None) -> None:
        """An object as a whole; readers see all of it or nothing.

        Raises:
            OutputError: if it cannot be written.
        """
        obstore = load_obstore()
        with told(self, "write"):
            obstore.put(self.bucket(), self.key, data, attributes=attributes or {})

    def delete(self) -> int:
        """Remove everything in the folder; how many objects that were.

        Raises:
            OutputError: for a whole bucket, or if they cannot be removed.
        """
        if not self.key:
            raise OutputError(f"a whole bucket is not removed, got {self}")
        obstore = load_obstore()
        keys = [key for key, _ in self.list() if key.startswith(f"{self.key}/") or key == self.key]
        with told(self, "remove"):
            for first in range(0, len(keys), PAGE):
                obstore.delete(self.bucket(), keys[first : first + PAGE])
        return len(keys)


Place = Path | RemotePlace
"""Where a store lies."""


@lru_cache(maxsize=32)
def _bucket(name: str, allow: AllowList, environment: tuple[tuple[str, str], ...]) -> S3Store:
    return open_bucket(Address("s3", name, 0, ""), allow, OutputError)


@contextmanager
def told(
    place: Place | str, doing: str, error: type[OutputError | StoreError] = OutputError
) -> Iterator[None]:
    """Turn whatever obstore raises into one error that names the place.

    Raises:
        error: see above.
    """
    try:
        yield
    except (TilemapError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except FileNotFoundError as problem:
        raise error(f"cannot {doing} {place}: it is not there") from problem
    except Exception as problem:
        kind = type(problem).__name__
        refused = kind in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError")
        reason = f"access is refused; {CREDENTIALS}" if refused else reason_of(problem)
        raise error(f"cannot {doing} {place}: {reason}") from problem
