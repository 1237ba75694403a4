"""The ledger's tables, one step from each version to the next.

A step that has been released is never edited: what changes is a new step behind it. Times are UTC
as ISO 8601 text with their offset, dates are ISO text, what is structured is JSON.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from tilemap.errors import ConfigError, StoreError

REBUILD = "run `tilemap ledger rebuild`"


class DamagedLedgerError(StoreError):
    """A file that is no sound ledger; a new one can be made from what lies on disk."""


APPLICATION_ID = 0x746D6C67
"""``tmlg``: tells a ledger from any other SQLite file."""

_FIRST = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    # Who drives. The token grows with each take-over and is never used twice; a holder counts
    # its beats, which tells that it lives even where clocks do not agree.
    """CREATE TABLE lock (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        token INTEGER NOT NULL,
        holder TEXT,
        since TEXT,
        lease_s REAL NOT NULL,
        beat INTEGER NOT NULL,
        heard TEXT
    )""",
    "INSERT INTO lock VALUES (1, 0, NULL, NULL, 0, 0, NULL)",
    """CREATE TABLE pass (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        token INTEGER NOT NULL,
        holder TEXT NOT NULL,
        began TEXT NOT NULL,
        ended TEXT,
        status TEXT NOT NULL,
        exit_code INTEGER,
        summary TEXT NOT NULL DEFAULT '{}'
    )""",
    # `pass` is the one that first saw this fingerprint.
    """CREATE TABLE scene (
        area TEXT NOT NULL,
        id TEXT NOT NULL,
        day TEXT,
        sources TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        newest REAL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        gone INTEGER NOT NULL DEFAULT 0,
        first_seen TEXT NOT NULL,
        last_seen TEXT NOT NULL,
        pass INTEGER NOT NULL,
        PRIMARY KEY (area, id)
    )""",
    # `counts` is 0 once a person has said to try again.
    """CREATE TABLE attempt (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        pass INTEGER NOT NULL REFERENCES pass (seq),
        area TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        digest TEXT NOT NULL,
        began TEXT NOT NULL,
        ended TEXT,
        status TEXT NOT NULL,
        error TEXT,
        exit_code INTEGER,
        seconds REAL NOT NULL DEFAULT 0,
        pixels INTEGER NOT NULL DEFAULT 0,
        counts INTEGER NOT NULL DEFAULT 1
    )""",
    "CREATE INDEX attempt_work ON attempt (area, id, kind, digest)",
    "CREATE INDEX attempt_running ON attempt (seq) WHERE status = 'running'",
    """CREATE TABLE timing (
        attempt INTEGER NOT NULL REFERENCES attempt (seq) ON DELETE CASCADE,
        step TEXT NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (attempt, step)
    ) WITHOUT ROWID""",
    # `removed` keeps a row whose folder is gone here, but not yet where products are mirrored to.
    """CREATE TABLE product (
        folder TEXT PRIMARY KEY,
        area TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version TEXT NOT NULL,
        digest TEXT NOT NULL,
        result TEXT NOT NULL,
        day TEXT,
        status TEXT NOT NULL,
        run TEXT NOT NULL,
        item TEXT NOT NULL,
        published TEXT NOT NULL,
        pixels INTEGER NOT NULL,
        km2 REAL,
        seconds REAL NOT NULL,
        sources TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        listed INTEGER NOT NULL,
        unlisted TEXT,
        forgotten INTEGER NOT NULL DEFAULT 0,
        mirrored INTEGER NOT NULL DEFAULT 0,
        removed INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE UNIQUE INDEX product_listed ON product (area, kind, id) WHERE listed",
    """CREATE TABLE quarantine (
        area TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        digest TEXT NOT NULL,
        since TEXT NOT NULL,
        reason TEXT NOT NULL,
        exit_code INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        PRIMARY KEY (area, kind, id)
    )""",
)

# The number of the pass that last compared the files of a product with their checksums.
_SECOND = ("ALTER TABLE product ADD COLUMN checked INTEGER",)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
"""Statements of each step; the first makes version 1 of an empty file."""


def version_of(connection: sqlite3.Connection) -> int:
    """Version of a file; 0 if it is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """The file is a ledger that this tilemap can read, or empty.

    Raises:
        ConfigError: of a newer version.
        DamagedLedgerError: its tables are not those of its version.
        StoreError: it is no ledger.
    """
    version, mark, tables = _told_at_once(connection)
    if mark != APPLICATION_ID and (tables or version):
        raise StoreError(
            f"{path} is an SQLite file, but no ledger of tilemap; move it away, and {REBUILD}"
        )
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path} is of version {version}, this tilemap reads up to {len(MIGRATIONS)}; use the "
            f"tilemap that wrote it, or a newer one. If none did, move it away, and {REBUILD}"
        )
    if tables != _tables_of(MIGRATIONS[:version]):
        raise DamagedLedgerError(f"{path} is damaged (its tables are not as made); {REBUILD}")


@cache
def _tables_of(steps: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Tables and indexes that these steps make of an empty file."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in (statement for step in steps for statement in step):
            connection.execute(statement)
        return _told_at_once(connection)[2]


def _told_at_once(connection: sqlite3.Connection) -> tuple[int, int, tuple[str, ...]]:
    """Version, mark and tables, all of one moment: another process may be making it."""
    outermost = not connection.in_transaction
    if outermost:
        connection.execute("BEGIN")
    try:
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        made = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
        return version_of(connection), mark, tuple(row[0] for row in connection.execute(made))
    finally:
        if outermost and connection.in_transaction:
            connection.execute("ROLLBACK")  # nothing was written


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to the newest version, each step whole or not at all.

    Args:
        connection: in autocommit mode.
        path: of the file, for errors.

    Raises:
        ConfigError, StoreError: see ``check_version``.
    """
    while version_of(connection) < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            check_version(connection, path)
            version = version_of(connection)  # another process may have done it meanwhile
            if version < len(MIGRATIONS):
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
