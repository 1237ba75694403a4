"""Zarr v3 arrays in which one task writes one chunk, and a missing chunk is an error.

Every array is written chunk by chunk with crc32c: a flipped bit is an error when read. Zarr
itself reads a missing chunk as fill; here the file must exist. ``LocalStore`` renames chunks into
place but does not flush them to the disk, so ``sync_chunk`` does before a done mark vouches for
one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.array_spec import ArrayConfigParams

from tilemap.errors import StoreError

Index = tuple[int, ...]
WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}
"""Of an open array, not of the stored one: a chunk of nothing but fill is written too."""


def create_group(path: Path, attributes: dict[str, Any]) -> zarr.Group:
    """A new, empty group that appears under its name only when ``finish_group`` is called."""
    partial = _partial(path)
    if partial.exists():
        shutil.rmtree(partial)
    return zarr.create_group(str(partial), zarr_format=3, attributes=attributes)


def finish_group(path: Path) -> None:
    """Give a group made by ``create_group`` its name, in one step."""
    _partial(path).rename(path)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def open_group(path: Path) -> zarr.Group:
    """An existing group, for reading and for writing its chunks.

    Raises:
        StoreError: if there is none.
    """
    try:
        return zarr.open_group(str(path), mode="r+", zarr_format=3)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreError(f"cannot open the store {path}: {error}") from error


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
            f"the store {group.store_path} has no array {name!r}; start it anew with --fresh"
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


def has_chunk(array: zarr.Array[Any], index: Index) -> bool:
    """Whether the chunk was ever written."""
    return chunk_path(array, index).exists()


def write_chunk(array: zarr.Array[Any], index: Index, value: npt.NDArray[Any]) -> None:
    """Write one whole chunk.

    Args:
        value: as large as the chunk, or as the part of it inside the array.

    Raises:
        StoreError: if it cannot be written; "no space" is said so.
    """
    try:
        array[_selection(array, index)] = value
    except OSError as error:
        raise StoreError(f"cannot write chunk {index} of {array.path}: {error.strerror}") from error


def read_chunk(array: zarr.Array[Any], index: Index) -> npt.NDArray[Any]:
    """Read one whole chunk.

    Raises:
        StoreError: if it was never written, cannot be read, or fails its checksum.
    """
    if not has_chunk(array, index):
        raise StoreError(
            f"chunk {index} of {array.path} must be written before it is read; it is missing"
        )
    try:
        return np.asarray(array[_selection(array, index)])
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"chunk {index} of {array.path} is damaged: {error}") from error


def sync_chunk(array: zarr.Array[Any], index: Index) -> None:
    """Flush one written chunk to the disk.

    Raises:
        StoreError: if the disk refuses.
    """
    path = chunk_path(array, index)
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(f"cannot flush {path}: {error.strerror}") from error
