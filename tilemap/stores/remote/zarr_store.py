"""Zarr on a bucket, in which a missing chunk is an error as well."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from tilemap.errors import StoreError
from tilemap.stores.remote.place import RemotePlace, told
from tilemap.stores.remote.s3 import load_obstore, open_bucket


class MissingChunkError(Exception):
    """A chunk that was never written."""


class BucketStore(ObjectStore[Any]):
    """One folder of a bucket as a Zarr store; a chunk is one object, written in one request.

    Args:
        place: the folder.
        strict: a missing chunk is an error when read, not fill. Zarr itself reads the chunks at the
            edge of an array before it writes them, so writers are not strict.
    """

    def __init__(self, place: RemotePlace, strict: bool = False) -> None:
        bucket = open_bucket(place.address, place.allow, StoreError, prefix=place.key)
        super().__init__(bucket, read_only=strict)
        self.place, self.strict = place, strict
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def __str__(self) -> str:
        return str(self.place)

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        """See ``zarr.abc.store.Store``; what may only be read is strict."""
        return BucketStore(self.place, strict=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See ``zarr.abc.store.Store``.

        Raises:
            MissingChunkError: if a strict store has no such key.
        """
        found = await super().get(key, prototype, byte_range)
        if found is None and self.strict:
            raise MissingChunkError(key)
        return found

    def told(self, doing: str) -> AbstractContextManager[None]:
        """Errors of the network as one ``StoreError`` that names the place."""
        return told(self.place, f"{doing} a chunk of", StoreError)

    def has(self, key: str) -> bool:
        """Whether there is an object; by the list of the place where it has one.

        Raises:
            StoreError: if it cannot be asked.
        """
        if self.place.keys is not None:
            return key in self.place.keys
        obstore = load_obstore()
        with self.told("look for"):
            try:
                obstore.head(self.store, key)
            except FileNotFoundError:
                return False
            return True

    def read(self, array: zarr.Array[Any], selection: tuple[slice, ...]) -> Any:
        """Part of an array of this store, in one request a chunk.

        Raises:
            MissingChunkError: if a chunk was never written.
        """
        if array.path not in self._arrays:
            strict = BucketStore(self.place, strict=True)
            self._arrays[array.path] = zarr.open_array(
                strict, path=array.path, mode="r", zarr_format=3
            )
        return self._arrays[array.path][selection]

    def remove(self, key: str) -> None:
        """Remove one object, if it is there.

        Raises:
            StoreError: if it cannot be removed.
        """
        obstore = load_obstore()
        with self.told("remove"):
            obstore.delete(self.store, key)
