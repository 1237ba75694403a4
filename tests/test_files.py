"""Files as people leave them, and errors of the system as ours, here and from a worker."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pickle
import pkgutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tilemap
from tilemap.errors import (
    ConfigError,
    DiskFullError,
    ModelError,
    OutputError,
    StoreError,
    TilemapError,
)
from tilemap.files import (
    has_room,
    outside_error,
    read_json,
    read_toml,
    storing,
    system_error,
    translating,
)


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


def _names(name: str) -> None:
    Path(name).stat()


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (lambda: _names("x" * 300), 74),
        (lambda: _names("\ud800"), 2),
        (lambda: np.zeros((1 << 60,), np.uint8), 69),
        (lambda: os.open("/dev/full/x", os.O_RDONLY), 74),
        (lambda: socket.create_connection(("127.0.0.1", 1), timeout=5), 69),
    ],
)
def test_what_the_system_does_is_no_bug(cause: Callable[[], object], code: int) -> None:
    """One line that says what failed, and the exit code of its kind."""
    with pytest.raises(TilemapError) as caught, translating():
        cause()
    assert caught.value.exit_code == code
    assert len(str(caught.value).splitlines()) == 1


def test_a_bug_stays_one() -> None:
    """Nothing of the system has led to it."""
    with pytest.raises(ZeroDivisionError), translating():
        raise ZeroDivisionError
    assert outside_error(KeyError("b04")) is None


BAD_JSON = {
    "nested deeper than the stack": b"[" * 100_000 + b"]" * 100_000,
    "nested a little too deep": b"[" * 102 + b"]" * 102,
    "tables in tables": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "no text": b"\xff\xfe\x00",
    "half of a letter": b'{"a": "\xc3',
    "a zero byte": b'{"a": 1}\0',
    "cut": b'{"a": [1, 2',
    "empty": b"",
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON)
def test_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    """Names the file, in one line, as the error that the caller asks for."""
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_json(path, ModelError)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


BAD_TOML = {
    "nested deeper than the stack": b"a = " + b"[" * 100_000 + b"]" * 100_000,
    "nested a little too deep": b"a = " + b"[" * 102 + b"]" * 102,
    "dotted": b".".join([b"a"] * 5000) + b" = 1",
    "a number of 5,000 digits": b"a = " + b"9" * 5000,
    "twice": b"a = 1\na = 2\n",
    "no text": b"\xff\xfe\x00",
    "a zero byte": b"a = 1\0",
    "a month 13": b"a = 2020-13-01",
}


@pytest.mark.parametrize("content", BAD_TOML.values(), ids=BAD_TOML)
def test_what_is_no_toml(tmp_path: Path, content: bytes) -> None:
    """Names the file, in few lines."""
    path = tmp_path / "nights.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_what_is_no_file(tmp_path: Path) -> None:
    """Missing, a folder, a pipe that nobody writes to, a name that is too long, no access."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in ("not-there", "folder", "pipe", "x" * 300, "folder/not/there"):
        with pytest.raises(StoreError, match=r"cannot be read|must be a file"):
            read_json(tmp_path / path)
    for path in ("not-there", "folder", "x" * 300):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_toml(tmp_path / path)


def test_a_mark_of_windows_is_passed_over(tmp_path: Path) -> None:
    """Its editors put one before the text."""
    for name, content in (("a.toml", b"b = 1"), ("a.json", b'{"b": 1}')):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + content)
        assert (read_toml(path) if name == "a.toml" else read_json(path)) == {"b": 1}


def test_what_is_deep_but_not_too_deep_is_read(tmp_path: Path) -> None:
    """A polygon in a collection in a feature has a handful of levels."""
    path = tmp_path / "a.json"
    value: list[object] = []
    for _ in range(99):
        value = [value]
    path.write_text(json.dumps(value))
    assert read_json(path) == value
