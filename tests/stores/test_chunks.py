"""Chunks: whole, checked, flushed; one that was never written is an error."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from tilemap.errors import DiskFullError, StoreError
from tilemap.geometry import Tile
from tilemap.stores.chunks import (
    CONTENT,
    DamagedStoreError,
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
from tilemap.stores.marks import Mark, Marks


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


# --- metadata ----------------------------------------------------------------------------------


def _group(path: Path) -> Path:
    """A finished group with an array that has a checksum, and a coordinate that has none."""
    group = create_group(path, {"spatial:transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 9e6]})
    add_array(group, "numbers", (7, 13), (4, 8), np.uint16, ("y", "x"))
    group.create_array("x", shape=(13,), dtype=np.float64)[...] = np.arange(13) + 0.5
    finish_group(path)
    write_chunk(array_of(open_group(path), "numbers"), (0, 0), _values((4, 8)))
    return path


@pytest.mark.parametrize("name", ["zarr.json", "numbers/zarr.json", "x/zarr.json", "x/c/0"])
def test_what_has_no_checksum_of_its_own_is_checked_on_opening(tmp_path: Path, name: str) -> None:
    """No flipped bit of metadata or coordinates is read as something else."""
    path = _group(tmp_path / "a.zarr")
    attributes = dict(open_group(path).attrs)
    whole = (path / name).read_bytes()
    draw = np.random.default_rng(3)
    found = 0
    for where in draw.choice(len(whole), 40, replace=False):
        content = bytearray(whole)
        content[where] ^= 1 << int(draw.integers(8))
        (path / name).write_bytes(content)
        try:
            assert dict(open_group(path).attrs) == attributes  # as after a changed blank
        except DamagedStoreError:
            found += 1
    assert found > 20
    (path / name).write_bytes(whole)
    assert dict(open_group(path).attrs) == attributes


@pytest.mark.parametrize("length", [0, 1, 100])
def test_metadata_that_was_cut_is_damage(tmp_path: Path, length: int) -> None:
    """As a power cut leaves it; the same for a file that is gone."""
    for name in ("zarr.json", "numbers/zarr.json"):
        path = _group(tmp_path / name.replace("/", "-"))
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[:length])
        with pytest.raises(DamagedStoreError):
            open_group(path)
        (path / name).unlink()
        with pytest.raises(DamagedStoreError):
            open_group(path)


def test_other_layout_of_the_same_metadata_is_no_damage(tmp_path: Path) -> None:
    """Editors and `consolidate_metadata` write the same in other words."""
    path = _group(tmp_path / "a.zarr")
    root = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(root, sort_keys=True, separators=(",", ":")))
    open_group(path)
    with pytest.warns(Warning, match="onsolidated"):
        zarr.consolidate_metadata(str(path), zarr_format=3)
    np.testing.assert_array_equal(
        read_chunk(array_of(open_group(path), "numbers"), (0, 0)), _values((4, 8))
    )


def test_a_store_of_an_earlier_version_is_opened(tmp_path: Path) -> None:
    """It has no digest of its metadata."""
    path = _group(tmp_path / "a.zarr")
    root = json.loads((path / "zarr.json").read_text())
    del root["attributes"][CONTENT]
    (path / "zarr.json").write_text(json.dumps(root))
    assert read_chunk(array_of(open_group(path), "numbers"), (0, 0)).shape == (4, 8)


@pytest.mark.parametrize("damage", [b"", b"\0" * 21, b"\xff"])
def test_a_damaged_mark_is_no_mark(tmp_path: Path, damage: bytes) -> None:
    """The tile counts as not done, and can be marked again."""
    group = create_group(tmp_path / "a.zarr", {})
    Marks.create(group, (2, 3))
    finish_group(tmp_path / "a.zarr")
    marks = Marks(open_group(tmp_path / "a.zarr"))
    for tile in (Tile(0, 1), Tile(1, 2)):
        marks.set(tile, Mark.DONE)
    (tmp_path / "a.zarr" / "done" / "c" / "0" / "1").write_bytes(damage)
    assert marks.get(Tile(0, 1)) is Mark.MISSING
    assert marks.get(Tile(1, 2)) is Mark.DONE
    np.testing.assert_array_equal(marks.read(), [[0, 0, 0], [0, 0, 1]])
    marks.set(Tile(0, 1), Mark.PROVISIONAL)
    assert marks.get(Tile(0, 1)) is Mark.PROVISIONAL
