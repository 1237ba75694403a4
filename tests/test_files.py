"""Errors of the system as ours: a full disk by its type, and the same on the way from a worker."""

from __future__ import annotations

import errno
import importlib
import os
import pickle
import pkgutil
import sqlite3
from pathlib import Path

import pytest

import tilemap
from tilemap.errors import DiskFullError, OutputError, StoreError, TilemapError
from tilemap.files import has_room, storing, system_error


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EFBIG, DiskFullError),
        (errno.EACCES, OutputError),
        (errno.EIO, OutputError),
    ],
)
def test_no_room_is_a_type(number: int, kind: type[TilemapError]) -> None:
    """Whatever the language of the system; what else fails is of the kind that was asked for."""
    with pytest.raises(TilemapError) as caught, storing("cannot write a", kind=OutputError):
        raise OSError(number, "ein Satz")
    assert type(caught.value) is kind
    assert str(caught.value).startswith("cannot write a: ein Satz")


def test_a_full_disk_behind_another_error() -> None:
    """A library that wraps the error of the system hides nothing."""
    try:
        try:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        except OSError as error:
            raise RuntimeError("could not flush") from error
    except RuntimeError as error:
        found = system_error("cannot write a", error)
    assert isinstance(found, DiskFullError)


def test_a_full_database() -> None:
    """SQLite has numbers of its own."""
    with sqlite3.connect(":memory:") as database:
        database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as caught:
            database.execute("CREATE TABLE a (b)")
    database.close()
    assert isinstance(system_error("cannot write a", caught.value), DiskFullError)


def test_an_error_of_ours_stays_as_it_is() -> None:
    """It is not wrapped twice."""
    error = StoreError("chunk (0, 0) is damaged")
    with pytest.raises(StoreError) as caught, storing("cannot write a"):
        raise error
    assert caught.value is error


def test_room_is_tried(tmp_path: Path) -> None:
    """A folder has room for a small file, and not for one larger than any disk."""
    assert has_room(tmp_path / "not" / "there")
    assert not has_room(tmp_path, need=1 << 60)
    silent = RuntimeError("write failed")  # as GDAL says it
    assert isinstance(system_error("cannot write", silent, tmp_path, need=1 << 60), DiskFullError)
    assert not isinstance(system_error("cannot write", silent, tmp_path), DiskFullError)
    assert list(tmp_path.iterdir()) == []


def test_errors_come_from_workers_as_they_are() -> None:
    """Type, text and exit code: what decides about a run is decided by the driver."""
    for module in pkgutil.walk_packages(tilemap.__path__, "tilemap."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds, found = [TilemapError], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.add(kind)
    assert len(found) > 15
    for kind in found:
        arguments = ("what must hold", (1, 2)) if kind.__name__ == "DamagedError" else ("text",)
        error = kind(*arguments)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (str(again), again.exit_code) == (str(error), error.exit_code)
