"""A new ledger from what lies on disk, put in the place of the old one in one step."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tilemap.errors import BusyError, StoreError
from tilemap.files import system_error
from tilemap.nightly import disk, quarantine_files
from tilemap.nightly.database import DamagedLedgerError, Database, connect, side_files
from tilemap.nightly.facts import Product
from tilemap.nightly.inspection import check, strays
from tilemap.nightly.ledger import LEDGER_FILE, Ledger
from tilemap.nightly.lock import LEASE_S, Holder, LockState, acquire, judge, lock_of, read_lock
from tilemap.nightly.rows import (
    AttemptRow,
    attempt_of,
    pass_of,
    product_of,
    product_values,
    quarantine_to_json,
    scene_of,
    to_text,
)

__all__ = ["RebuildReport", "check", "rebuild", "strays"]
_NEW = f".{LEDGER_FILE}.rebuilt"
_HISTORY = ("pass", "scene", "attempt", "timing")
"""Tables that say what the disk does not, parents first."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild found.

    Args:
        products: in the new ledger.
        listed: of them, those that the catalog names.
        quarantines: in the new ledger.
        history: whether passes, attempts and scenes could be read from the old one and are kept.
        kept: the old ledger; None if there was none.
        notes: what could not be taken as it is, for people.
    """

    products: int
    listed: int
    quarantines: int
    history: bool
    kept: Path | None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Disk:
    """What is taken from disk: products by folder, whether listed, and quarantines."""

    products: dict[str, Product]
    listed: set[str]
    quarantines: list[dict[str, Any]]
    notes: list[str]


def rebuild(root: Path, now: datetime, lease_s: float = LEASE_S) -> RebuildReport:
    """Make the ledger anew; the old one stays as ``ledger.sqlite.before-N``.

    Products, what is listed, and quarantines are what the disk says. Passes, attempts and scenes
    are taken from the old ledger where it is sound.

    Args:
        root: of the passes.
        now: when products ceased to be listed of which that is not known.
        lease_s: as in ``acquire``.

    Raises:
        BusyError: a pass runs, or somebody reads the ledger just now.
        ConfigError: the ledger is of a newer version.
        StoreError: the root is not there, or cannot be written.
    """
    path = root / LEDGER_FILE
    if not root.is_dir():
        raise StoreError(f"there is no folder {root}")
    try:
        with ExitStack() as stack:
            stack.enter_context(_alone(root))
            old = _open_old(path)
            token = 0
            if old is not None:
                stack.enter_context(old)
                token = stack.enter_context(acquire(old, lease_s)).token
            elif path.exists():
                token = _refuse_alive(path)
            found = _read_disk(root, old)
            new = root / _NEW
            _remove(new)
            stack.callback(_remove, new)
            _fill(new, found, old, token, now)
            kept = _swap(new, path, old)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise system_error(f"{path} cannot be rebuilt", error) from error
    return RebuildReport(
        products=len(found.products),
        listed=len(found.listed),
        quarantines=len(found.quarantines),
        history=old is not None,
        kept=kept,
        notes=tuple(found.notes),
    )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One rebuild at a time, where there is no ledger to hold the lock of."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"another rebuild of {root} runs; try again later") from error
        yield
    finally:
        os.close(handle)


def _open_old(path: Path) -> Ledger | None:
    """The ledger that lies there, if it is sound."""
    if not path.exists():
        return None
    try:
        old = Ledger(Database.open(path, create=False))
    except DamagedLedgerError:
        return None
    try:
        read_lock(old.database)
    except DamagedLedgerError:
        old.close()
        return None
    return old


def _refuse_alive(path: Path) -> int:
    """The token of a damaged ledger, as far as it can be read; an error if its holder lives."""
    state: LockState | None = None
    with (
        suppress(sqlite3.DatabaseError, DamagedLedgerError),
        closing(connect(path, "ro")) as connection,
    ):
        connection.row_factory = sqlite3.Row
        row = connection.execute("SELECT * FROM lock").fetchone()
        state = None if row is None else lock_of(row)
    if state is None:
        return 0
    if state.holder is not None and judge(state, Holder.here(), datetime.now(UTC)) == "alive":
        raise BusyError(f"{path.parent} is held by {state.told()}; try again later")
    return state.token


# --- what the disk says ------------------------------------------------------------------------


def _read_disk(root: Path, old: Ledger | None) -> _Disk:
    found = _Disk({}, set(), [], [])
    sound = set()
    rows = _readable(old)
    for folder in disk.product_folders(root):
        try:
            product = disk.read_product(root, folder)
        except StoreError as error:
            if folder not in rows:
                found.notes.append(f"{folder}: {error}; it is left alone")
                continue
            product = rows[folder]
        found.products[folder] = product
        mended = disk.mend(root, product)
        found.notes += [f"{folder}: its {name} is written again" for name in mended.written]
        found.notes += [f"{folder}: {fault}" for fault in mended.faults]
        if mended.lost:
            found.notes.append(f"{folder}: {mended.lost[0]}; it is not listed, and made again")
        else:
            sound.add(folder)
    areas = sorted({product.area for product in found.products.values()})
    for area in areas:
        found.listed |= _listed(root, area, [found.products[f] for f in sorted(sound)], found.notes)
    for path in quarantine_files.paths(root):
        try:
            found.quarantines.append(quarantine_to_json(quarantine_files.read(root, path)))
        except StoreError as error:
            found.notes.append(f"{path.relative_to(root)}: {error}; it is left out")
    return found


def _readable(old: Ledger | None) -> dict[str, Product]:
    """Products of the old ledger by folder, but for rows that are damaged."""
    rows = [] if old is None else old.database.read("SELECT * FROM product")
    found = {}
    for row in rows:
        with suppress(DamagedLedgerError):
            product = product_of(row)
            found[product.folder] = product
    return found


def _listed(root: Path, area: str, products: list[Product], notes: list[str]) -> set[str]:
    """Folders of one area that are listed: at most one of each id."""
    named = disk.listed_folders(root, area)
    mine = [product for product in products if product.area == area]
    if named is None:
        notes.append(f"{area}: no collection can be read; the newest of each scene is listed")
    newest: dict[tuple[str, str], Product] = {}
    for product in sorted(mine, key=lambda one: one.published):
        if named is None or product.folder in named:
            newest[product.kind, product.id] = product
    return {product.folder for product in newest.values()}


# --- the new ledger ----------------------------------------------------------------------------


def _fill(path: Path, found: _Disk, old: Ledger | None, token: int, now: datetime) -> None:
    """Write a ledger that is one file when it is closed."""
    with Ledger(Database.open(path)) as new:
        with new.database.transaction() as connection:
            connection.execute("UPDATE lock SET token = ?", (token,))
            if old is not None:
                for table, rows in _history(old).items():
                    _insert(connection, table, rows)
            before = _products_before(old)
            for folder, product in found.products.items():
                values = {**product_values(product), **before.pop(folder, {})}
                values |= {"listed": folder in found.listed, "removed": 0}
                if values["listed"]:
                    values["unlisted"] = None
                elif values.get("unlisted") is None:
                    values["unlisted"] = to_text(now)
                _insert(connection, "product", [values])
            for row in before.values():
                if row["removed"]:  # here, but not yet where it was mirrored to
                    _insert(connection, "product", [row])
            _insert(connection, "quarantine", found.quarantines)
        new.database.settle()


def _history(old: Ledger) -> dict[str, list[sqlite3.Row]]:
    """What the old ledger says and the disk does not, by table, but for rows that are damaged.

    An attempt goes with its pass, and a timing with its attempt.
    """
    rows = {name: list(old.database.read(f"SELECT * FROM {name}")) for name in _HISTORY}
    rows["pass"] = [row for row in rows["pass"] if _is_sound(pass_of, row)]
    rows["scene"] = [row for row in rows["scene"] if _is_sound(scene_of, row)]
    passes = {row["seq"] for row in rows["pass"]}
    rows["attempt"] = [
        row for row in rows["attempt"] if row["pass"] in passes and _is_sound(_attempt, row)
    ]
    attempts = {row["seq"] for row in rows["attempt"]}
    rows["timing"] = [
        row
        for row in rows["timing"]
        if row["attempt"] in attempts and isinstance(row["seconds"], float)
    ]
    return rows


def _attempt(row: sqlite3.Row) -> AttemptRow:
    return attempt_of({**dict(row), "pass_id": ""}, {})


def _is_sound(read: Callable[[sqlite3.Row], Any], row: sqlite3.Row) -> bool:
    try:
        read(row)
    except DamagedLedgerError:
        return False
    return True


def _products_before(old: Ledger | None) -> dict[str, dict[str, Any]]:
    """What the old ledger has of each folder and the disk has not."""
    if old is None:
        return {}
    every = old.database.read("SELECT * FROM product ORDER BY rowid")
    rows = [dict(row) for row in every if _is_sound(product_of, row)]
    own = ("unlisted", "forgotten", "mirrored", "removed", "checked")
    return {row["folder"]: row if row["removed"] else {n: row[n] for n in own} for row in rows}


def _insert(connection: sqlite3.Connection, table: str, rows: list[Any]) -> None:
    for row in rows:
        names = list(row.keys())
        connection.execute(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [row[name] for name in names],
        )


def _swap(new: Path, path: Path, old: Ledger | None) -> Path | None:
    """Put the new file in the old one's place; there is a ledger at every moment."""
    kept = None
    if path.exists():
        if old is not None:
            old.database.settle()
        kept = _keep(path)
        # A log would be read as the new file's; a sound one was emptied just now.
        for side in side_files(path):
            side.unlink(missing_ok=True)
    new.replace(path)
    _sync(path.parent)
    return kept


def _keep(path: Path) -> Path:
    """Copy a ledger, and the log of a damaged one, to the first free name."""
    number = 1
    while (kept := path.with_name(f"{path.name}.before-{number}")).exists():
        number += 1
    log = side_files(path)[0]
    if log.exists() and log.stat().st_size:
        shutil.copyfile(log, side_files(kept)[0])
    partial = path.with_name(f".{kept.name}.partial")
    shutil.copyfile(path, partial)
    _sync(partial)
    partial.replace(kept)
    return kept


def _remove(path: Path) -> None:
    for each in (path, *side_files(path)):
        each.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
