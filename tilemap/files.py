"""Files that people and programs wrote, and what the system says of them, as errors of ours."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from tilemap.errors import (
    ConfigError,
    DiskFullError,
    StoreError,
    TilemapError,
    UnavailableError,
    UsageError,
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space is left, a quota is used up, or the file is too large for its disk."""
_TRIED_BYTES = 1 << 20
_STEP_BYTES = 256 << 20
_TRIED_S = 5.0
_SHOWN = 200
SEAL = "checksum"
"""Last key of a sealed file: sha256 of all else, as canonical JSON."""
DEEPEST = 100
"""Levels of lists and tables in a file; more would break whoever walks through them."""


def open_file(path: str | Path) -> BufferedReader:
    """Open a file to read its bytes. A pipe or a device is refused, it is never waited for.

    Raises:
        OSError: if it cannot be opened, or is no file.
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | os.O_NONBLOCK)  # else a pipe waits for its writer here
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, "it must be a file", path)


def read_file(path: str | Path) -> bytes:
    """Read all of a file; see ``open_file``."""
    with open_file(path) as file:
        return file.read()


def read_json(path: Path, kind: type[TilemapError] = StoreError) -> Any:
    """Read the value of a JSON file.

    Raises:
        kind: if it is no file that can be read, or holds no JSON.
    """
    with storing(f"{path}: cannot be read", kind=kind):
        content = read_file(path)
    try:
        return decode_json(content)
    except ValueError as error:
        raise kind(f"{path}: is not JSON: {error}") from error


def read_toml(path: Path, kind: type[TilemapError] = ConfigError) -> dict[str, Any]:
    """Read the table of a TOML file.

    Raises:
        kind: if it cannot be read, or holds no TOML.
    """
    with storing(f"{path}: cannot be read", kind=kind):
        content = read_file(path)
    try:
        return decode_toml(content)
    except ValueError as error:
        raise kind(f"{path}: is not TOML: {error}") from error


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all, with a checksum of what it says.

    Raises:
        StoreError: if it cannot be written.
    """
    said = json.loads(json.dumps(value))  # as it will be read
    partial = path.with_name(path.name + ".partial")
    with storing(f"cannot write {path}"):
        with partial.open("w") as file:
            json.dump({**said, SEAL: _seal(said)}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Read what ``write_sealed`` wrote; None if it is not there or is damaged.

    A file without a checksum, such as one of an earlier version, is taken as it is.

    Raises:
        StoreError: if it may not be read.
    """
    with storing(f"cannot read {path}"):
        if not path.is_file():
            return None
        content = read_file(path)
    try:
        value = decode_json(content)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    seal = value.pop(SEAL, None)
    return value if seal is None or seal == _seal(value) else None


def _seal(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def decode_json(content: bytes | str) -> Any:
    """Decode JSON.

    Raises:
        ValueError: whatever is wrong with it, such as a key that has two values.
    """
    try:
        value = json.loads(content, object_pairs_hook=_table)
    except RecursionError:
        raise _too_deep() from None
    except (json.JSONDecodeError, UnicodeDecodeError, _TwiceError):
        raise
    except ValueError:
        raise _too_long() from None
    return _checked(value)


class _TwiceError(ValueError):
    """A key with two values: readers differ in which of them they take."""


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        for key, value in pairs:
            if repr(table[key]) != repr(value):  # as JSON: 1 is not True, NaN is itself
                raise _TwiceError(f"the key {key[:_SHOWN]!r} is there twice, with two values")
    return table


def decode_toml(content: bytes) -> dict[str, Any]:
    """Decode TOML; a byte order mark, as editors of Windows write it, is passed over.

    Raises:
        ValueError: whatever is wrong with it.
    """
    try:
        value = tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise _too_deep() from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        raise _too_long() from None
    _checked(value)
    return value


def _checked(value: Any) -> Any:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"its lists and tables must be at most {DEEPEST} levels deep")


def _too_long() -> ValueError:
    return ValueError("it has a number of thousands of digits")  # which Python does not convert


@contextmanager
def storing(
    what: str, place: Path | None = None, kind: type[TilemapError] = StoreError
) -> Iterator[None]:
    """Turn an error of the system into one of ours; see ``system_error``."""
    try:
        yield
    except TilemapError:
        raise
    except OSError as error:
        raise system_error(what, error, place, kind) from error


def system_error(
    what: str,
    error: BaseException,
    place: Path | None = None,
    kind: type[TilemapError] = StoreError,
    need: int = _TRIED_BYTES,
) -> TilemapError:
    """Turn an error of the system, or of a library that wrote a file, into one of ours.

    Args:
        what: begins the message, such as "cannot write map.tif".
        error: that came; one of ours is returned as it is.
        place: where was written. If the error does not say why, a write is tried there.
        kind: of the error, if the disk is not full.
        need: bytes that were to be written there, at most.

    Returns:
        The error to raise; a ``DiskFullError`` if there is no room left.
    """
    if isinstance(error, TilemapError):
        return error
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if not _says_full(error):
        if place is None or _number(error) is not None or has_room(place, need):
            return kind(f"{what}: {reason}")
        reason = "no space is left"
    return DiskFullError(f"{what}: {reason}; free some, or write to another disk")


@contextmanager
def translating() -> Iterator[None]:
    """Let nothing out but errors of ours and bugs; see ``outside_error``. Also a decorator."""
    try:
        yield
    except Exception as error:
        known = outside_error(error)
        if known is None or known is error:
            raise
        raise known from error


def outside_error(error: BaseException) -> TilemapError | None:
    """Turn what the system does, and nobody has expected, into one of ours.

    Returns:
        The error for a person; None if it can only be a bug in tilemap.
    """
    if isinstance(error, TilemapError):
        return error
    if isinstance(error, MemoryError):
        more = f" ({error})" if str(error) else ""
        return UnavailableError(
            f"there must be enough memory, it ran out{more}; take fewer workers or a smaller core"
        )
    if isinstance(error, UnicodeEncodeError):
        text = ascii(error.object)[:80]
        return UsageError(f"names and paths must be text that UTF-8 can hold, got {text}")
    if isinstance(error, ConnectionError | TimeoutError):
        return UnavailableError(f"a connection is lost: {error}; the same command continues")
    if isinstance(error, OSError):
        name = error.filename
        where = "a file" if name is None else os.fsdecode(name)
        what = f"{where if len(where) <= _SHOWN else '...' + where[-_SHOWN:]} cannot be used"
        return system_error(what, error)
    return None


def has_room(place: Path, need: int = _TRIED_BYTES) -> bool:
    """Return False if a file of this size has no room in a folder, or within the user's quota.

    It is tried, for a few seconds at most: a quota does not show in the free bytes of a disk.
    """
    folder = next((p for p in (place, *place.absolute().parents) if p.is_dir()), None)
    until = time.monotonic() + _TRIED_S
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(min(need, _TRIED_BYTES)))
            file.flush()
            os.fsync(file.fileno())
            for start in range(0, need, _STEP_BYTES):
                os.posix_fallocate(file.fileno(), start, min(_STEP_BYTES, need - start))
                if time.monotonic() > until:
                    break
    except OSError as error:
        return error.errno not in NO_ROOM
    return True


def _says_full(error: BaseException | None) -> bool:
    """Return True if an error, or one that led to it, says that there is no room."""
    while error is not None:
        if _number(error) in NO_ROOM:
            return True
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _number(error: BaseException) -> int | None:
    number: int | None = getattr(error, "errno", None) if isinstance(error, OSError) else None
    return number


def remove(path: Path) -> None:
    """Remove a folder with all in it, or whatever else has its name; what cannot be, stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def is_file(path: str | Path) -> bool:
    """Return True if there is a file of that name; False too where no file may have such a name."""
    try:
        return Path(path).is_file()
    except OSError:
        return False
