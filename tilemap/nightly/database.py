"""One SQLite file and one connection to it: opened with care, written in transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tilemap.errors import BusyError, StoreError
from tilemap.files import system_error
from tilemap.nightly.migrations import REBUILD, DamagedLedgerError, check_version, migrate

__all__ = ["REBUILD", "DamagedLedgerError", "Database", "connect", "inode_of", "side_files", "told"]
BUSY_S = 20.0
"""How long a writer waits for another one; each holds the file for milliseconds."""
_TRIES = 10


def side_files(path: Path) -> tuple[Path, Path]:
    """What SQLite keeps beside a file that is in use: its log, and the log's index."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of SQLite as ours.

    Raises:
        BusyError: another process writes, and does not end.
        StoreError: damaged, or cannot be read or written.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a bug
    except sqlite3.DatabaseError as error:
        # An error that is not of SQLite itself is of a text that is no UTF-8.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise BusyError(f"{path} is being written by another process; try again") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            reason = str(error).partition("\n")[0]
            raise DamagedLedgerError(f"{path} is damaged ({reason}); {REBUILD}") from error
        if code in (
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
        ):
            raise system_error(f"{path} cannot be read or written", error) from error
        raise


class Database:
    """A connection whose writes are transactions, one at a time.

    Args:
        path: of the file.
        connection: in autocommit mode; of the file, or of a copy in memory.
        inode: device and inode of the file when it was opened; None for a copy.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, inode: tuple[int, int] | None
    ) -> None:
        self.path = path
        self.fence: Callable[[], None] | None = None
        """Called at the start of each write transaction; raises if it must not be."""
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text
        self._connection = connection
        self._inode = inode
        self._mutex = threading.RLock()
        self._depth = 0
        self._pid = os.getpid()

    @classmethod
    def open(cls, path: Path, create: bool = True) -> Database:
        """Open for reading and writing, at the newest version.

        Raises:
            ConfigError: the file is of a newer version.
            StoreError: damaged, not ours, or absent where it must be there.
        """
        with told(path):
            if path.exists():
                with closing(connect(path, "ro")) as connection:
                    check_version(connection, path)  # before anything could touch the file
            elif not create:
                raise StoreError(f"there is no ledger at {path}")
            for _ in range(_TRIES):
                before = inode_of(path)
                connection = connect(path, "rwc" if create else "rw")
                try:
                    _prepare(connection, path)
                    # A rebuild may have put another file there since, and a new file had no inode.
                    if before is not None and inode_of(path) == before:
                        return cls(path, connection, before)
                except BaseException:
                    connection.close()
                    raise
                connection.close()
        raise BusyError(f"{path} is being replaced again and again; try again")

    @classmethod
    def snapshot(cls, path: Path) -> Database:
        """A copy in memory, as the file is at this moment; empty if there is none.

        Nothing is written, no side file made, and a pass may write meanwhile.

        Raises:
            ConfigError: the file is of a newer version.
            StoreError: damaged, or cannot be read.
        """
        copy = connect(Path(":memory:"), None)
        with told(path):
            if path.exists():
                _copy(path, copy)
            check_version(copy, path)
            migrate(copy, path)
        copy.execute("PRAGMA query_only = ON")
        return cls(path, copy, None)

    def close(self) -> None:
        """Close; in a forked child it is the parent's and stays as it is."""
        if os.getpid() == self._pid:
            self._connection.close()

    def settle(self) -> None:
        """Bring all that is in the log into the file itself, and empty the log.

        Raises:
            BusyError: somebody reads what is to be brought over.
        """
        with self._mutex, told(self.path):
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise BusyError(f"{self.path} is being read by another process; try again")

    def in_place(self) -> bool:
        """Whether the file that was opened is still the one that lies there."""
        return self._inode is None or inode_of(self.path) == self._inode

    def read(self, sql: str, *values: object, **named: object) -> list[sqlite3.Row]:
        """Rows of a query; ``?`` in it are values, ``:name`` are named ones."""
        with self._mutex, told(self.path):
            return self._connection.execute(sql, named or values).fetchall()

    def row(self, sql: str, *values: object, **named: object) -> sqlite3.Row | None:
        """First row of a query."""
        rows = self.read(sql, *values, **named)
        return rows[0] if rows else None

    def write(self, sql: str, *values: object) -> sqlite3.Cursor:
        """One statement in a transaction."""
        with self.transaction() as connection:
            return connection.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; inside another one, all or nothing of it.

        Raises:
            BusyError, StoreError: see ``told``; nothing has changed then.
        """
        with self._mutex, told(self.path):
            outermost = self._depth == 0
            self._connection.execute("BEGIN IMMEDIATE" if outermost else "SAVEPOINT inner")
            self._depth += 1
            try:
                if outermost and self.fence is not None:
                    self.fence()
                yield self._connection
                self._connection.execute("COMMIT" if outermost else "RELEASE inner")
            except BaseException:
                self._undo(outermost)
                raise
            finally:
                self._depth -= 1

    def _undo(self, outermost: bool) -> None:
        """Roll back, unless SQLite has done so (as it does when the disk is full)."""
        if not self._connection.in_transaction:
            return
        with suppress(sqlite3.DatabaseError):  # the first error is the one to tell
            if outermost:
                self._connection.execute("ROLLBACK")
            else:
                self._connection.execute("ROLLBACK TO inner")
                self._connection.execute("RELEASE inner")


def _text(data: bytes) -> str | bytes:
    """A text; one that is no UTF-8 stays what it is, for whoever reads its row to find."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def inode_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path, mode: str | None, busy_s: float | None = None) -> sqlite3.Connection:
    """A connection in autocommit mode.

    Args:
        path: of the file.
        mode: ``ro``, ``rw``, ``rwc``; None for a database in memory.
        busy_s: how long it waits for another writer [default: ``BUSY_S``].
    """
    uri = ":memory:" if mode is None else f"{path.absolute().as_uri()}?mode={mode}"
    timeout = BUSY_S if busy_s is None else busy_s
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=timeout, check_same_thread=False
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Durable commits, a sound file, the newest version."""
    check_version(connection, path)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    _use_wal(connection, path)
    # A quick check leaves out indexes, by which a row with a flipped bit is not found.
    problem = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if problem != "ok":
        raise DamagedLedgerError(f"{path} is damaged ({problem.splitlines()[-1]}); {REBUILD}")
    migrate(connection, path)


def _use_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Readers do not wait for the writer then, nor it for them."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:  # two who make it at once: SQLite does not wait
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreError(f"{path} must lie on a local disk, SQLite cannot keep its log there")


def _copy(path: Path, copy: sqlite3.Connection) -> None:
    """Copy a file as it is now. Where it has no log nobody has it open, and none is made."""
    log = side_files(path)[0]
    for _ in range(_TRIES):
        before = _state(path)
        quiet = not log.exists()
        with closing(connect(path, "ro&immutable=1" if quiet else "ro")) as connection:
            connection.backup(copy)
        if not quiet or (not log.exists() and _state(path) == before):
            return
    raise BusyError(f"{path} changes again and again; try again")


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
