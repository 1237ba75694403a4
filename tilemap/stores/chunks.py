"""Zarr v3 arrays in which one task writes one chunk, and a missing chunk is an error.

Every array is written chunk by chunk with crc32c: a flipped bit is an error when read. Zarr
itself reads a missing chunk as fill; here the file must exist. ``LocalStore`` renames chunks into
place but does not flush them to the disk, so ``sync_chunk`` does before a done mark vouches for
one.

Metadata has no checksum of its own, and it says where a store lies on Earth. So a finished group
holds a digest of it, which is compared whenever the group is opened.

On S3 a chunk is one object, which is there when its request was answered: nothing is flushed. There
is no rename either, so a group is complete when it holds that digest.
"""

from __future__ import annotations

import hashlib
import json
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

from tilemap.errors import OutputError, StoreError
from tilemap.files import remove, storing

if TYPE_CHECKING:
    from tilemap.stores.remote.place import Place
    from tilemap.stores.remote.zarr_store import BucketStore

T = TypeVar("T")
Index = tuple[int, ...]
WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}
"""Of an open array, not of the stored one: a chunk of nothing but fill is written too."""


CONTENT = "tilemap:content"
"""Attribute of a finished group: names of its files, and one digest of what they say."""
COMPLETE = "tilemap:complete"
"""Attribute of a complete group on S3 that was made before there was ``CONTENT``."""
_META, _CHECKED = "zarr.json", "crc32c"


class DamagedChunkError(StoreError):
    """A chunk that was never written, cannot be read, or fails its checksum."""


class DamagedStoreError(StoreError):
    """A store that is not there or whose metadata is damaged; it has to be made again."""


def create_group(path: Place, attributes: dict[str, Any]) -> zarr.Group:
    """A new, empty group that can be opened only when ``finish_group`` was called."""
    if not isinstance(path, Path):
        return zarr.create_group(_bucket_store(path), zarr_format=3, attributes=attributes)
    partial = _partial(path)
    if partial.exists():
        shutil.rmtree(partial)
    return zarr.create_group(str(partial), zarr_format=3, attributes=attributes)


def finish_group(path: Place) -> None:
    """Let a group made by ``create_group`` be opened, in one step; nothing else is added to it."""
    made: Place = _partial(path) if isinstance(path, Path) else path
    names = _unchecked(made)
    root = json.loads(_read(made, _META) or b"{}")
    root["attributes"] = {
        **root.get("attributes", {}),
        CONTENT: {"files": names, "sha256": _content_digest(made, names)},
    }
    text = json.dumps(root, indent=2).encode()
    if isinstance(path, Path):
        (_partial(path) / _META).write_bytes(text)
        _partial(path).rename(path)
    else:
        (path / _META).write(text)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def remove_group(path: Place) -> None:
    """Remove a group, whatever state it is in.

    Raises:
        OutputError: if it cannot be removed from its bucket.
    """
    if isinstance(path, Path):
        remove(path)
    else:
        path.delete()


def open_group(path: Place) -> zarr.Group:
    """An existing group, for reading and for writing its chunks.

    Raises:
        DamagedStoreError: if there is none, or its metadata is not what it was made with.
        StoreError: if it cannot be asked.
    """
    _check_content(path)
    where = str(path) if isinstance(path, Path) else _bucket_store(path)
    try:
        return zarr.open_group(where, mode="r+", zarr_format=3)
    except Exception as error:  # of zarr, which raises what its parser happens to meet
        raise DamagedStoreError(f"cannot open the store {path}: {error}") from error


def _check_content(path: Place) -> None:
    try:
        data = _read(path, _META)
    except OutputError as error:
        raise StoreError(str(error)) from error
    if data is None:
        raise DamagedStoreError(f"cannot open the store {path}: it is not there")
    try:
        attributes = json.loads(data).get("attributes", {})
        made = attributes.get(CONTENT)
        if made is None:  # made before there was one
            if not isinstance(path, Path) and attributes.get(COMPLETE) is not True:
                raise DamagedStoreError(f"the store {path} was never completed")
            return
        same = _content_digest(path, list(made["files"])) == made["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError):
        same = False
    if not same:
        raise DamagedStoreError(f"the store {path} is damaged: its metadata has changed")


def _unchecked(path: Place) -> list[str]:
    """Files of a group that no checksum of their own covers: metadata, small coordinates."""
    if isinstance(path, Path):
        every = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    else:
        every = sorted(key.removeprefix(f"{path.key}/") for key, _ in path.list())
    arrays = {name.rpartition("/")[0]: name for name in every if name.endswith(f"/{_META}")}
    bare = {
        folder
        for folder, name in arrays.items()
        if _CHECKED
        not in [codec["name"] for codec in json.loads(_read(path, name) or b"{}")["codecs"]]
    }
    return [n for n in every if n.endswith(_META) or n.partition("/")[0] in bare]


def _read(path: Place, name: str) -> bytes | None:
    """A file of a store; None if it is not there or the disk has lost it.

    Raises:
        StoreError: if it may not be read.
    """
    if isinstance(path, Path):
        try:
            # A pipe would be waited for.
            return (path / name).read_bytes() if (path / name).is_file() else None
        except PermissionError as error:
            raise StoreError(f"cannot open the store {path}: {error.strerror}") from error
        except OSError:
            return None
    try:
        return (path / name).read()
    except OutputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _content_digest(path: Place, names: Sequence[str]) -> str:
    """Digest of what the files say; of metadata whatever its layout."""
    total = hashlib.sha256()
    for name, data in zip(names, ask_each(path, lambda n: _read(path, n), names), strict=True):
        if data is None:
            raise ValueError(f"{name} is not there")
        if name.endswith(_META):
            value = json.loads(data)
            if name == _META:
                value["attributes"].pop(CONTENT, None)
                value.pop("consolidated_metadata", None)  # a copy, which readers may add
            data = json.dumps(value, sort_keys=True).encode()
        total.update(f"{name} {len(data)}\n".encode() + data)
    return total.hexdigest()


def _bucket_store(place: Any) -> BucketStore:
    from tilemap.stores.remote.zarr_store import BucketStore

    return BucketStore(place)


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
        DamagedStoreError: if the group has no such array.
    """
    try:
        with zarr.config.set({"array.write_empty_chunks": True}):  # taken over by the open array
            array = group.get(name)
    except Exception as error:  # see ``open_group``
        raise DamagedStoreError(f"cannot open {group.store_path}/{name}: {error}") from error
    if not isinstance(array, zarr.Array):
        raise DamagedStoreError(f"the store {group.store_path} has no array {name!r}")
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
    return chunk_path(array, index).is_file()


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
        DamagedChunkError: if it was never written, cannot be read, or fails its checksum.
        StoreError: if it cannot be asked.
    """
    if (remote := _remote(array)) is not None:
        return _read_remote(remote, array, index)
    if not has_chunk(array, index):
        raise _missing(array, index)
    try:
        return np.asarray(array[_selection(array, index)])
    except MemoryError:
        raise
    except Exception as error:  # of a decoder that meets damaged bytes
        raise DamagedChunkError(f"chunk {index} of {array.path} is damaged: {error}") from error


def _missing(array: zarr.Array[Any], index: Index) -> DamagedChunkError:
    return DamagedChunkError(
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
            raise DamagedChunkError(f"chunk {index} of {array.path} is damaged: {error}") from error


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
