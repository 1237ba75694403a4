"""Chunks: whole, checked, flushed; one that was never written is an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from tilemap.errors import DiskFullError, StoreError
from tilemap.stores.chunks import (
    add_array,
    array_of,
    chunk_path,
    create_group,
    finish_group,
    has_chunk,
    open_group,
    read_chunk,
    sync_chunk,
    write_chunk,
)


@pytest.fixture
def array(tmp_path: Path) -> zarr.Array[Any]:
    """Two by two chunks of (4, 8); those of the last row and column reach beyond the array."""
    create_group(tmp_path / "a.zarr", {"kept": 1})
    finish_group(tmp_path / "a.zarr")
    return add_array(
        open_group(tmp_path / "a.zarr"), "numbers", (7, 13), (4, 8), np.uint16, ("y", "x")
    )


def _values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 60_000, shape).astype(np.uint16)


def test_chunks_come_back_as_written(array: zarr.Array[Any]) -> None:
    """Whole chunks and the parts of chunks inside the array; plain zarr reads the same."""
    whole = _values((7, 13))
    for row, col in np.ndindex(2, 2):
        part = whole[4 * row : 4 * row + 4, 8 * col : 8 * col + 8]
        write_chunk(array, (row, col), part)
        np.testing.assert_array_equal(read_chunk(array, (row, col)), part)
    root = Path(array.store.root) / "numbers"  # type: ignore[attr-defined]
    plain = zarr.open_array(str(root), mode="r")
    np.testing.assert_array_equal(plain[:], whole)


def test_codecs_are_lz4_then_a_checksum(array: zarr.Array[Any]) -> None:
    """The checksum is of what lies on the disk, so it comes last."""
    blosc, crc = array.compressors
    assert isinstance(blosc, BloscCodec)
    assert str(getattr(blosc.cname, "value", blosc.cname)) == "lz4"
    assert isinstance(crc, Crc32cCodec)


def test_a_chunk_never_written_is_an_error(array: zarr.Array[Any]) -> None:
    """Zarr alone would give zeros."""
    write_chunk(array, (0, 0), _values((4, 8)))
    assert not has_chunk(array, (0, 1))
    with pytest.raises(StoreError, match=r"chunk \(0, 1\) of numbers must be written"):
        read_chunk(array, (0, 1))
    assert not array[0:4, 8:13].any()


def test_a_chunk_of_nothing_but_fill_is_written(tmp_path: Path, array: zarr.Array[Any]) -> None:
    """Its file exists, also when the array was opened again, so it is known to be done."""
    again = array_of(open_group(tmp_path / "a.zarr"), "numbers")
    for which, index in ((array, (0, 0)), (again, (1, 1))):
        zeros = np.zeros((4, 8) if index == (0, 0) else (3, 5), dtype=np.uint16)
        write_chunk(which, index, zeros)
        assert has_chunk(which, index)
        np.testing.assert_array_equal(read_chunk(which, index), zeros)


def test_every_flipped_bit_is_found(array: zarr.Array[Any]) -> None:
    """One bit anywhere in the file of a chunk, the checksum's own included."""
    write_chunk(array, (0, 0), _values((4, 8)))
    path = chunk_path(array, (0, 0))
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"chunk \(0, 0\) of numbers is damaged"):
            read_chunk(array, (0, 0))
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_chunk(array, (0, 0)), _values((4, 8)))


@pytest.mark.parametrize("kept", [0, 3, 20, -1])
def test_a_chunk_cut_short_is_found(array: zarr.Array[Any], kept: int) -> None:
    """As a crash without a flush leaves it: empty, or without its end."""
    write_chunk(array, (0, 0), _values((4, 8)))
    path = chunk_path(array, (0, 0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match="damaged"):
        read_chunk(array, (0, 0))


@pytest.mark.parametrize(
    ("number", "says", "kind"),
    [
        (errno.ENOSPC, "No space left on device", DiskFullError),
        (errno.EDQUOT, "Disk quota exceeded", DiskFullError),
        (errno.EACCES, "Permission denied", StoreError),
    ],
)
def test_why_a_chunk_cannot_be_written_is_said(
    array: zarr.Array[Any], monkeypatch: pytest.MonkeyPatch, number: int, says: str, kind: type
) -> None:
    """The words of the system, whatever zarr wraps around them, in one line."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(type(array), "__setitem__", fail)
    with pytest.raises(StoreError, match=says) as caught:
        write_chunk(array, (0, 0), _values((4, 8)))
    assert len(str(caught.value).splitlines()) == 1
    assert type(caught.value) is kind


def test_flushing_what_is_not_there_is_an_error(array: zarr.Array[Any]) -> None:
    """A done mark never vouches for a chunk that is gone."""
    write_chunk(array, (0, 0), _values((4, 8)))
    sync_chunk(array, (0, 0))
    with pytest.raises(StoreError, match="cannot flush"):
        sync_chunk(array, (1, 1))


def test_a_group_has_no_name_before_it_is_whole(tmp_path: Path) -> None:
    """Half a group is never opened, and does not stand in the way of the next attempt."""
    path = tmp_path / "b.zarr"
    group = create_group(path, {"attempt": 1})
    add_array(group, "left_over", (4,), (4,), np.uint8, ("x",))
    assert not path.exists()
    with pytest.raises(StoreError, match="cannot open the store"):
        open_group(path)
    create_group(path, {"attempt": 2})
    finish_group(path)
    assert open_group(path).attrs["attempt"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.zarr"]
    with pytest.raises(StoreError, match="no array 'left_over'"):
        array_of(open_group(path), "left_over")


def test_a_damaged_group_is_an_error(tmp_path: Path) -> None:
    """Metadata that is no JSON, as after a lost write, says which store it was."""
    create_group(tmp_path / "c.zarr", {})
    finish_group(tmp_path / "c.zarr")
    (tmp_path / "c.zarr" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"c\.zarr"):
        open_group(tmp_path / "c.zarr")
