"""What is known of all passes: scenes, attempts, products, quarantines, and who drives now.

::

    ROOT/ledger.sqlite                         this; -wal and -shm beside it while it is open
    ROOT/quarantine/AREA/ID.json               each quarantine once more, for `ledger rebuild`

Only the process that holds the lock writes. What belongs together is one transaction, synced
before it counts: after a kill at any point the ledger is as before or as after. Order is by row
number, never by time. A ``key`` is the id of a scene, or ``CHANGE_ID`` for a series.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.errors import StoreError
from tilemap.nightly import quarantine_files
from tilemap.nightly.database import REBUILD, Database, side_files
from tilemap.nightly.facts import Found, Kind, Product, Quarantine, Status
from tilemap.nightly.publication import Publication
from tilemap.nightly.rows import (
    AttemptRow,
    PassRow,
    SceneRow,
    attempt_of,
    fingerprint_text,
    pass_of,
    product_from_json,
    product_of,
    product_to_json,
    quarantine_from_json,
    quarantine_of,
    quarantine_to_json,
    scene_of,
    scene_values,
    to_json,
    to_text,
)

if TYPE_CHECKING:
    from tilemap.nightly.lock import Holder, Lock

__all__ = [
    "LEDGER_FILE", "AttemptRow", "Ledger", "PassRow", "Publication", "SceneRow",
    "product_from_json", "product_to_json", "quarantine_from_json", "quarantine_to_json",
]  # fmt: skip
LEDGER_FILE = "ledger.sqlite"
_WORK = "area = ? AND kind = ? AND id = ?"


class Ledger:
    """The ledger of one root. ``open`` to write, ``peek`` to look.

    Every method may raise what ``database.told`` does, and a writing one ``LostLockError`` once
    ``acquire`` was called and the lock is held no more.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.root = database.path.parent
        self._pass: int | None = None

    @classmethod
    def open(cls, path: Path, create: bool = True) -> Ledger:
        """Open for writing, at the newest version; a new file if there is none.

        Raises:
            ConfigError: the file is of a newer version; it is not touched.
            StoreError: it is damaged or no ledger; or there is none, and it must be there or
                products lie beside it.
        """
        _refuse_lost(path)
        return cls(Database.open(path, create))

    @classmethod
    def peek(cls, path: Path) -> Ledger:
        """A copy to read, as the file is now; empty if there is none. A pass may run meanwhile.

        Raises:
            ConfigError, StoreError: as ``open`` does.
        """
        _refuse_lost(path)
        return cls(Database.snapshot(path))

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several writes as one: all of them or none, and the disk waits once for all."""
        with self.database.transaction():
            yield

    # --- scenes --------------------------------------------------------------------------------

    def see(self, found: Found, now: datetime) -> bool:
        """Record a scene that was found; whether an earlier pass saw the same files."""
        values = scene_values(found)
        with self.database.transaction() as connection:
            settled = self.seen(found)
            row = self.database.row(
                "SELECT fingerprint, pass FROM scene WHERE area = ? AND id = ?",
                found.area, found.id,
            )  # fmt: skip
            same = row is not None and row["fingerprint"] == values["fingerprint"]
            values["pass"] = row["pass"] if same and row is not None else self._pass or 0
            values["gone"] = 0
            values["first_seen"] = values["last_seen"] = to_text(now)
            connection.execute(
                f"INSERT INTO scene ({', '.join(values)}) VALUES ({_slots(values)})"
                " ON CONFLICT (area, id) DO UPDATE SET "
                + ", ".join(f"{name} = excluded.{name}" for name in values if name != "first_seen"),
                values,
            )
        return settled

    def seen(self, found: Found) -> bool:
        """Whether an earlier pass saw the same files of a scene; records nothing."""
        row = self.database.row(
            "SELECT 1 FROM scene WHERE area = ? AND id = ? AND fingerprint = ? AND pass IS NOT ?",
            found.area, found.id, fingerprint_text(found.fingerprint), self._pass,
        )  # fmt: skip
        return row is not None

    def gone(self, area: str, ids: Collection[str], now: datetime) -> None:
        """Record that an area has only these scenes now; the others stay known as gone.

        Args:
            area: that was looked through without a problem.
            ids: that were found.
            now: when.
        """
        kept = set(ids)
        with self.database.transaction() as connection:
            rows = self.database.read("SELECT id FROM scene WHERE area = ? AND NOT gone", area)
            connection.executemany(
                "UPDATE scene SET gone = 1 WHERE area = ? AND id = ?",
                [(area, row["id"]) for row in rows if row["id"] not in kept],
            )

    def scenes(self, area: str | None = None) -> list[SceneRow]:
        """All scenes, by area, day and id."""
        rows = self.database.read(
            "SELECT * FROM scene WHERE :area IS NULL OR area = :area ORDER BY area, day, id",
            area=area,
        )
        return [scene_of(row) for row in rows]

    # --- passes --------------------------------------------------------------------------------

    def begin_pass(self, pass_id: str, holder: Holder, now: datetime) -> None:
        """Record that a pass runs."""
        with self.database.transaction() as connection:
            made = connection.execute(
                "INSERT INTO pass (id, token, holder, began, status)"
                " VALUES (?, (SELECT token FROM lock), ?, ?, 'running')",
                (pass_id, to_json(asdict(holder)), to_text(now)),
            )
            self._pass = made.lastrowid

    def end_pass(
        self, pass_id: str, status: str, exit_code: int, now: datetime, summary: Mapping[str, Any]
    ) -> None:
        """Record how a pass ended."""
        self.database.write(
            "UPDATE pass SET status = ?, exit_code = ?, ended = ?, summary = ? WHERE id = ?",
            status, exit_code, to_text(now), to_json(summary), pass_id,
        )  # fmt: skip

    def passes(self, last: int = 20) -> list[PassRow]:
        """The last passes, the newest first."""
        rows = self.database.read("SELECT * FROM pass ORDER BY seq DESC LIMIT ?", last)
        return [pass_of(row) for row in rows]

    def interrupted(self, now: datetime) -> int:
        """Settle what a pass left that was killed: how many attempts it had under way.

        To be called by the holder of the lock before it begins. Attempts and passes of earlier
        holders that still run become interrupted; the files of quarantines are made to agree.
        """
        others = "token < (SELECT token FROM lock) OR (SELECT holder IS NULL FROM lock)"
        with self.database.transaction() as connection:
            made = connection.execute(
                "UPDATE attempt SET status = 'interrupted', ended = ? WHERE status = 'running'"
                f" AND pass IN (SELECT seq FROM pass WHERE {others})",
                (to_text(now),),
            )
            connection.execute(
                "UPDATE pass SET status = 'interrupted', ended = ? WHERE status = 'running'"
                f" AND ({others})",
                (to_text(now),),
            )
            quarantine_files.agree(self.root, self.quarantines())
        return made.rowcount

    # --- attempts ------------------------------------------------------------------------------

    def start(
        self, pass_id: str, area: str, kind: Kind, key: str, digest: str, now: datetime
    ) -> int:
        """Record that work has begun; the attempt's number."""
        made = self.database.write(
            "INSERT INTO attempt (pass, area, kind, id, digest, began, status)"
            " VALUES ((SELECT seq FROM pass WHERE id = ?), ?, ?, ?, ?, ?, 'running')",
            pass_id, area, kind, key, digest, to_text(now),
        )  # fmt: skip
        assert made.lastrowid is not None
        return made.lastrowid

    def finish(  # noqa: PLR0913 (columns of one row)
        self,
        attempt: int,
        status: Status,
        now: datetime,
        error: str | None = None,
        exit_code: int = 0,
        seconds: float = 0.0,
        pixels: int = 0,
        steps: Mapping[str, float] | None = None,
    ) -> None:
        """Record how an attempt ended; one that has ended (as interrupted, say) stays as it is.

        Args:
            attempt: its number.
            status: what became of it.
            now: when.
            error: for a person.
            exit_code: of the error.
            seconds: wall time, by a clock that nobody sets.
            pixels: newly mapped.
            steps: seconds by step.
        """
        with self.database.transaction() as connection:
            made = connection.execute(
                "UPDATE attempt SET status = ?, ended = ?, error = ?, exit_code = ?, seconds = ?,"
                " pixels = ? WHERE seq = ? AND status = 'running'",
                (status, to_text(now), error, exit_code, seconds, pixels, attempt),
            )
            if made.rowcount:
                connection.executemany(
                    "INSERT INTO timing VALUES (?, ?, ?)",
                    [(attempt, step, taken) for step, taken in (steps or {}).items()],
                )

    def failures(self, area: str, kind: Kind, key: str, digest: str) -> int:
        """How often work with this digest failed or was partial since a person said to retry."""
        row = self.database.row(
            f"SELECT count(*) AS n FROM attempt WHERE {_WORK} AND digest = ?"
            " AND counts AND status IN ('failed', 'partial')",
            area, kind, key, digest,
        )  # fmt: skip
        assert row is not None
        return int(row["n"])

    def attempts(
        self,
        area: str | None = None,
        kind: Kind | None = None,
        key: str | None = None,
        last: int = 50,
    ) -> list[AttemptRow]:
        """The last attempts, the newest first."""
        rows = self.database.read(
            "SELECT attempt.*, pass.id AS pass_id FROM attempt JOIN pass ON pass.seq = pass"
            " WHERE (:area IS NULL OR area = :area) AND (:kind IS NULL OR kind = :kind)"
            " AND (:key IS NULL OR attempt.id = :key) ORDER BY attempt.seq DESC LIMIT :last",
            area=area, kind=kind, key=key, last=last,
        )  # fmt: skip
        return [attempt_of(row, self._steps(row["seq"])) for row in rows]

    def _steps(self, attempt: int) -> dict[str, float]:
        rows = self.database.read("SELECT * FROM timing WHERE attempt = ? ORDER BY step", attempt)
        return {row["step"]: row["seconds"] for row in rows}

    def knows(self, area: str, key: str | None = None) -> bool:
        """Whether anything is recorded of an area, or of one key of it."""
        tables = ("scene", "attempt", "product", "quarantine")
        any_of = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE area = :area AND (:key IS NULL OR id = :key)"
            for table in tables
        )
        return self.database.row(f"{any_of} LIMIT 1", area=area, key=key) is not None

    # --- products ------------------------------------------------------------------------------

    def product(self, area: str, kind: Kind, key: str) -> Product | None:
        """The product that the catalog names; its digest is empty if it was forgotten."""
        row = self.database.row(f"SELECT * FROM product WHERE {_WORK} AND listed", area, kind, key)
        return None if row is None else product_of(row)

    def products(self, listed: bool | None = True, area: str | None = None) -> list[Product]:
        """Products whose folders are there, by area, kind, day and id, the older first.

        Args:
            listed: only those that the catalog names, or names no more; None for both.
            area: only of this one.
        """
        rows = self.database.read(
            "SELECT * FROM product WHERE NOT removed AND (:listed IS NULL OR listed = :listed)"
            " AND (:area IS NULL OR area = :area) ORDER BY area, kind, day, id, rowid",
            listed=listed, area=area,
        )  # fmt: skip
        return [product_of(row) for row in rows]

    def oldest_checked(self) -> list[Product]:
        """Listed products, those first whose files were compared longest ago or never."""
        rows = self.database.read(
            "SELECT * FROM product WHERE listed AND NOT removed ORDER BY checked, rowid"
        )
        return [product_of(row) for row in rows]

    def checked(self, products: Iterable[Product]) -> None:
        """Record that the files of these products were compared in this pass."""
        with self.database.transaction() as connection:
            connection.executemany(
                "UPDATE product SET checked = ? WHERE folder = ?",
                [(self._pass, product.folder) for product in products],
            )

    def unmirrored(self) -> list[Product]:
        """Listed products that are not known to lie where products are mirrored to."""
        rows = self.database.read(
            "SELECT * FROM product WHERE listed AND NOT mirrored AND NOT removed"
            " ORDER BY area, kind, day, id"
        )
        return [product_of(row) for row in rows]

    def left_over(self) -> list[Product]:
        """Products that were removed here, but not yet where they were mirrored to."""
        rows = self.database.read("SELECT * FROM product WHERE removed ORDER BY folder")
        return [product_of(row) for row in rows]

    @contextmanager
    def publishing(self, lock: Lock) -> Iterator[Publication]:
        """One transaction that changes what is published, and nothing if an error leaves it.

        The ledger's other methods take part in it. While it lasts no other process can take the
        lock over, so what is renamed in it is renamed by the holder.

        Raises:
            LostLockError: the lock is not held; before anything was done.
        """
        with self.database.transaction() as connection:
            lock.verify()
            # Whoever watches the lock sees that its holder lived, however long this lasts.
            connection.execute("UPDATE lock SET beat = beat + 1")
            yield Publication(self.database, connection)

    # --- quarantine ----------------------------------------------------------------------------

    def quarantine(self, quarantine: Quarantine) -> None:
        """Set work aside; instead of what was known of it."""
        values = quarantine_to_json(quarantine)
        with self.database.transaction() as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO quarantine ({', '.join(values)})"
                f" VALUES ({_slots(values)})",
                values,
            )
            quarantine_files.write(self.root, quarantine)

    def release(self, area: str, kind: Kind, key: str) -> bool:
        """Work is not set aside any more; whether it was."""
        with self.database.transaction() as connection:
            made = connection.execute(f"DELETE FROM quarantine WHERE {_WORK}", (area, kind, key))
        if made.rowcount:
            quarantine_files.remove(self.root, area, kind, key)
        return made.rowcount > 0

    def quarantined(self, area: str, kind: Kind, key: str) -> Quarantine | None:
        """Why work is set aside; None if it is not."""
        row = self.database.row(f"SELECT * FROM quarantine WHERE {_WORK}", area, kind, key)
        return None if row is None else quarantine_of(row)

    def quarantines(self) -> list[Quarantine]:
        """All that is set aside, by area, kind and id."""
        rows = self.database.read("SELECT * FROM quarantine ORDER BY area, kind, id")
        return [quarantine_of(row) for row in rows]


def _slots(values: Mapping[str, object]) -> str:
    return ", ".join(f":{name}" for name in values)


def _refuse_lost(path: Path) -> None:
    """An empty ledger where products lie would have all of them made once more."""
    there = path.exists()
    if there and any(f.exists() and f.stat().st_size for f in (path, side_files(path)[0])):
        return
    root = path.parent
    published = (file.parent.name for file in root.glob("products/*/*/*/work.json"))
    if any(not name.startswith(".") for name in published) or any(quarantine_files.paths(root)):
        what = f"an empty {path.name}" if there else f"no {path.name}"
        raise StoreError(f"{root} holds products, but {what}; {REBUILD}")
