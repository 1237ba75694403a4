"""Zarr v3 arrays in which one task writes one chunk, and a missing chunk is an error.

Every array is written chunk by chunk with crc32c: a flipped bit is an error when read. Zarr
itself reads a missing chunk as fill; here the file must exist. ``LocalStore`` renames chunks into
place but does not flush them to the disk, so ``sync_chunk`` does before a done mark vouches for
one.

On S3 a chunk is one object, which is there when its request was answered: nothing is flushed. There
is no rename either, so a group says of itself when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.array_spec import ArrayConfigParams

from tilemap.errors import StoreError
from tilemap.files import storing

if TYPE_CHECKING:
    from tilemap.stores.remote.place import Place
    from tilemap.stores.remote.zarr_store import BucketStore

T = TypeVar("T")
Index = tuple[int, ...]
WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}
"""Of an open array, not of the stored one: a chunk of nothing but fill is written too."""


COMPLETE = "tilemap:complete"
"""Attribute of a group on S3 that has all its arrays."""


def create_group(path: Place, attributes: dict[str, Any]) -> zarr.Group:
    """A new, empty group that can be opened only when ``finish_group`` was called."""
    if not isinstance(path, Path):
        return zarr.create_group(_bucket_store(path), zarr_format=3, attributes=attributes)
    partial = _partial(path)
    if partial.exists():
        shutil.rmtree(partial)
    return zarr.create_group(str(partial), zarr_format=3, attributes=attributes)


def finish_group(path: Place) -> None:
    """Let a group made by ``create_group`` be opened, in one step."""
    if isinstance(path, Path):
        _partial(path).rename(path)
    else:
        group = zarr.open_group(_bucket_store(path), mode="r+", zarr_format=3)
        group.update_attributes({COMPLETE: True})


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def open_group(path: Place) -> zarr.Group:
    """An existing group, for reading and for writing its chunks.

    Raises:
        StoreError: if there is none.
    """
    if not isinstance(path, Path):
        return _open_remote(path)
    try:
        return zarr.open_group(str(path), mode="r+", zarr_format=3)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreError(f"cannot open the store {path}: {error}") from error


def _bucket_store(place: Any) -> BucketStore:
    from tilemap.stores.remote.zarr_store import BucketStore

    return BucketStore(place)


def _open_remote(place: Any) -> zarr.Group:
    from tilemap.stores.remote.place import told

    with told(place, "open the store", StoreError):
        group = zarr.open_group(_bucket_store(place), mode="r+", zarr_format=3)
        if group.attrs.get(COMPLETE) is not True:
            raise StoreError(f"the store {place} was never completed; start it anew with `fresh`")
    return group


def snapshot(place: Place) -> Place:
    """The same place; on S3 with a list of what lies in it now, which ``has_chunk`` goes by."""
    return place if isinstance(place, Path) else place.listed()


def ask_each(place: Place, ask: Callable[[T], Any], things: Iterable[T]) -> Iterable[Any]:
    """Answers in order; of a store on S3 several at a time, for each takes a while."""
    if isinstance(place, Path):
        return map(ask, things)
    from tilemap.stores.remote.pool import pool

    return pool().threads.map(ask, things)


def add_array(
    group: zarr.Group,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: npt.DTypeLike,
    dimensions: Sequence[str],
    attributes: dict[str, Any] | None = None,
) -> zarr.Array[Any]:
    """An array of unwritten chunks: blosc-lz4, then crc32c.

    Args:
        dimensions: one name per axis, so that xarray opens it.
    """
    return group.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(chunks),
        dtype=np.dtype(dtype),
        compressors=[BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()],
        fill_value=0,
        dimension_names=tuple(dimensions),
        attributes=attributes or {},
        config=WRITE_ALL,
    )


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group.

    Raises:
        StoreError: if the group has no such array.
    """
    with zarr.config.set({"array.write_empty_chunks": True}):  # taken over by the open array
        array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise StoreError(
            f"the store {group.store_path} has no array {name!r}; start it anew with `fresh`"
        )
    return array


def chunk_path(array: zarr.Array[Any], index: Index) -> Path:
    """File of one chunk in a local store."""
    root = getattr(array.store, "root", None)
    if root is None:
        raise StoreError(f"stores must lie on a file system, got {array.store}")
    return Path(root) / array.path / array.metadata.encode_chunk_key(index)


def _selection(array: zarr.Array[Any], index: Index) -> tuple[slice, ...]:
    return tuple(
        slice(i * size, min((i + 1) * size, extent))
        for i, size, extent in zip(index, array.chunks, array.shape, strict=True)
    )


def _remote(array: zarr.Array[Any]) -> BucketStore | None:
    """The store of an array on S3; None for a local one."""
    return array.store if hasattr(array.store, "place") else None  # type: ignore[return-value]


def _key(array: zarr.Array[Any], index: Index) -> str:
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def has_chunk(array: zarr.Array[Any], index: Index) -> bool:
    """Whether the chunk was ever written."""
    if (remote := _remote(array)) is not None:
        return remote.has(_key(array, index))
    return chunk_path(array, index).exists()


def remove_chunk(array: zarr.Array[Any], index: Index) -> None:
    """Remove a chunk, if it is there."""
    if (remote := _remote(array)) is not None:
        remote.remove(_key(array, index))
    else:
        chunk_path(array, index).unlink(missing_ok=True)


def write_chunk(array: zarr.Array[Any], index: Index, value: npt.NDArray[Any]) -> None:
    """Write one whole chunk.

    Args:
        value: as large as the chunk, or as the part of it inside the array.

    Raises:
        StoreError: if it cannot be written; a ``DiskFullError`` if there is no room.
    """
    with storing(f"cannot write chunk {index} of {array.path}"):
        if (remote := _remote(array)) is not None:
            with remote.told("write"):
                array[_selection(array, index)] = value
        else:
            array[_selection(array, index)] = value


def read_chunk(array: zarr.Array[Any], index: Index) -> npt.NDArray[Any]:
    """Read one whole chunk.

    Raises:
        StoreError: if it was never written, cannot be read, or fails its checksum.
    """
    if (remote := _remote(array)) is not None:
        return _read_remote(remote, array, index)
    if not has_chunk(array, index):
        raise _missing(array, index)
    try:
        return np.asarray(array[_selection(array, index)])
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"chunk {index} of {array.path} is damaged: {error}") from error


def _missing(array: zarr.Array[Any], index: Index) -> StoreError:
    return StoreError(
        f"chunk {index} of {array.path} must be written before it is read; it is missing"
    )


def _read_remote(remote: BucketStore, array: zarr.Array[Any], index: Index) -> npt.NDArray[Any]:
    from tilemap.stores.remote.zarr_store import MissingChunkError

    with remote.told("read"):
        try:
            return np.asarray(remote.read(array, _selection(array, index)))
        except MissingChunkError as error:
            raise _missing(array, index) from error
        except (ValueError, RuntimeError) as error:
            raise StoreError(f"chunk {index} of {array.path} is damaged: {error}") from error


def sync_chunk(array: zarr.Array[Any], index: Index) -> None:
    """Flush one written chunk to the disk; on S3 there is nothing left to do.

    Raises:
        StoreError: if the disk refuses.
    """
    if _remote(array) is not None:
        return
    path = chunk_path(array, index)
    with storing(f"cannot flush {path}"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
