"""The ledger made anew from disk, on trees made by hand."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tilemap.errors import BusyError, ConfigError, StoreError
from tilemap.nightly.database import side_files
from tilemap.nightly.ledger import LEDGER_FILE, Ledger
from tilemap.nightly.lock import Holder, acquire, read_lock
from tilemap.nightly.pardon import forget
from tilemap.nightly.rebuild import rebuild

from .facts import NOW
from .roots import LATER, Root, published_root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A folder of passes in which all is well."""
    return published_root(tmp_path)


def test_nothing_is_lost_where_the_old_one_is_sound(root: Root) -> None:
    """Products, listing, quarantines, history: the new ledger says what the old one said."""
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        forget(ledger, "pucallpa", "2000")
        with ledger.publishing(lock) as publication:
            for one in ledger.products():
                publication.mirrored(one)
    gone = root.publish("gone", "g1")
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        with ledger.publishing(lock) as publication:
            publication.mirrored(gone)
            publication.removed(gone)
        root.catalogue(ledger.products())
    shutil.rmtree(root.products / gone.folder)
    before = root.known()
    assert len(before["products"]) == 5
    assert len(before["left over"]) == 1
    report = rebuild(root.path, LATER)
    assert root.known() == before
    assert (report.products, report.listed, report.quarantines) == (5, 4, 2)
    assert report.history
    assert report.notes == ()
    assert root.disagreements() == []
    assert report.kept == root.path / f"{LEDGER_FILE}.before-1"
    with Ledger.peek(report.kept) as kept:
        assert kept.products(listed=None) == before["products"]


@pytest.mark.parametrize("harm", ["missing", "damaged", "empty"])
def test_what_is_published_is_known_again_from_disk_alone(root: Root, harm: str) -> None:
    """Products, which of them are listed, what is set aside; when they ceased to be is now."""
    before = root.known()
    content = root.ledger_file.read_bytes()
    if harm == "missing":
        root.ledger_file.unlink()
    elif harm == "damaged":
        root.ledger_file.write_bytes(content[:5000] + b"\xff" * (len(content) - 5000))
    else:
        root.ledger_file.write_bytes(b"")
    report = rebuild(root.path, LATER)
    after = root.known()
    assert after["products"] == [
        one if one.listed else replace(one, unlisted=LATER) for one in before["products"]
    ]
    assert after["quarantine"] == before["quarantine"]
    assert after["scenes"] == after["attempts"] == after["passes"] == []
    assert report.history is (harm == "empty")
    assert (report.kept is None) is (harm == "missing")
    assert root.disagreements() == []
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger):
        assert ledger.interrupted(LATER) == 0
        assert len(ledger.quarantines()) == 2


def test_each_old_ledger_is_kept(root: Root) -> None:
    """Under the next free number, whole; nothing else is left beside."""
    for number in (1, 2, 3):
        before = root.ledger_file.read_bytes()
        report = rebuild(root.path, LATER)
        assert report.kept is not None
        assert report.kept.name == f"{LEDGER_FILE}.before-{number}"
        assert len(report.kept.read_bytes()) == len(before)
    names = {path.name for path in root.path.iterdir() if path.is_file()}
    assert names == {LEDGER_FILE, *(f"{LEDGER_FILE}.before-{n}" for n in (1, 2, 3))}


def test_the_log_of_a_damaged_ledger_is_kept_and_not_read_as_the_new_ones(root: Root) -> None:
    """It holds pages of another file."""
    with Ledger.open(root.ledger_file) as ledger:
        ledger.begin_pass("two", Holder.here("a test"), NOW)
        log = side_files(root.ledger_file)[0].read_bytes()
        index = side_files(root.ledger_file)[1].read_bytes()
    content = root.ledger_file.read_bytes()
    root.ledger_file.write_bytes(b"\xff" * 100 + content[100:])
    side_files(root.ledger_file)[0].write_bytes(log[:-100])
    side_files(root.ledger_file)[1].write_bytes(index)
    report = rebuild(root.path, LATER)
    assert report.kept is not None
    assert side_files(report.kept)[0].read_bytes() == log[:-100]
    assert root.disagreements() == []
    with closing(sqlite3.connect(root.ledger_file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_cannot_be_taken_is_told(root: Root) -> None:
    """A product without its record, one that lacks a file, a quarantine that is none."""
    (root.products / "pucallpa/2000/w1/work.json").write_text("{}")
    (root.products / "pucallpa/1985/v2/landcover.tif").write_bytes(b"short")
    (root.path / "quarantine/pucallpa/1990.json").write_text("[]")
    (root.products / "pucallpa/1985/.staged-v3").mkdir()
    report = rebuild(root.path, LATER)
    assert len(report.notes) == 3
    told = " ".join(report.notes)
    assert "pucallpa/1985/v2: landcover.tif must have 700 bytes, it has 5; it is not listed" in told
    assert "pucallpa/2000/w1: its work.json is written again" in told
    assert "quarantine/pucallpa/1990.json: a quarantine cannot be read" in told
    with Ledger.peek(root.ledger_file) as ledger:
        assert ledger.product("pucallpa", "map", "1985") is None
        assert {one.folder for one in ledger.products(listed=False)} == {
            "pucallpa/1985/v1", "pucallpa/1985/v2",
        }  # fmt: skip
        assert [one.area for one in ledger.quarantines()] == ["ucayali"]


GARBAGE = (
    "", "[1]", '{"a": 1}', "[" * 100_000, "9" * 5000, "2020-01-01T00:00:00", 4 * 10**18, 1.5,
    b"\xff",
)  # fmt: skip
"""Values of other kinds and out of every range, and what is no text."""


@pytest.mark.parametrize("table", ["scene", "pass", "attempt", "product", "quarantine", "timing"])
def test_a_damaged_row_is_found_and_left_out(root: Root, table: str) -> None:
    """Whatever is in any column: read, or refused with the way out, which is one."""
    sound = root.ledger_file.read_bytes()
    with closing(sqlite3.connect(root.ledger_file)) as file:
        columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
    for column in columns:
        if column in ("seq", "pass", "attempt"):  # keys, which SQLite itself checks
            continue
        for garbage in GARBAGE:
            root.ledger_file.write_bytes(sound)
            if not _put(root, table, column, garbage):
                continue
            problem = _problem(root)
            if problem is not None:
                assert "ledger rebuild" in problem, (column, garbage)
                assert len(problem) < 500, (column, garbage)
                rebuild(root.path, LATER)
                (root.path / f"{LEDGER_FILE}.before-1").unlink()
                assert _problem(root) is None, (column, garbage)


def _put(root: Root, table: str, column: str, garbage: object) -> bool:
    """Damage the first row of a table; False if SQLite does not take it."""
    value = "CAST(? AS TEXT)" if isinstance(garbage, bytes) else "?"
    key = "attempt" if table == "timing" else "rowid"
    first = f"{key} = (SELECT min({key}) FROM {table})"
    with closing(sqlite3.connect(root.ledger_file)) as file, file:
        try:
            file.execute(f"UPDATE {table} SET {column} = {value} WHERE {first}", (garbage,))
        except sqlite3.IntegrityError:
            return False
    return True


def _problem(root: Root) -> str | None:
    """Why the ledger cannot be read, if it cannot."""
    try:
        root.known()
    except StoreError as error:
        return str(error)
    return None


def test_a_ledger_without_its_lock_is_made_again(root: Root) -> None:
    """It is damaged like any other."""
    with closing(sqlite3.connect(root.ledger_file)) as file, file:
        file.execute("DELETE FROM lock")
    before = {one.folder for one in root.known()["products"] if one.listed}
    rebuild(root.path, LATER)
    assert {one.folder for one in root.known()["products"] if one.listed} == before
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger):
        pass


def test_without_a_collection_the_newest_is_listed(root: Root) -> None:
    """Better one too many in the catalog than one that retention may remove."""
    (root.products / "pucallpa" / "collection.json").write_text("{")
    listed = {one.folder for one in root.known()["products"] if one.listed}
    report = rebuild(root.path, LATER)
    assert report.notes == (
        "pucallpa: no collection can be read; the newest of each scene is listed",
    )
    assert {one.folder for one in root.known()["products"] if one.listed} == listed


def test_an_area_that_the_catalog_does_not_name_has_nothing_listed(root: Root) -> None:
    """Its collection went with its last product."""
    listed = [one for one in root.known()["products"] if one.listed and one.area == "pucallpa"]
    root.catalogue(listed)
    report = rebuild(root.path, LATER)
    assert report.notes == ()
    with Ledger.peek(root.ledger_file) as ledger:
        assert ledger.products() == listed
        assert [one.unlisted for one in ledger.products(False, "ucayali")] == [LATER]


# --- who may -----------------------------------------------------------------------------------


def test_a_pass_that_runs_keeps_its_ledger(root: Root) -> None:
    """A sound one, and one that is damaged but for its lock."""
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger, command="tilemap nightly"):
        before = sorted(path.name for path in root.path.iterdir())
        with pytest.raises(BusyError, match=r"is held by .*tilemap nightly"):
            rebuild(root.path, LATER)
        assert sorted(path.name for path in root.path.iterdir()) == before
        ledger.database.settle()
        content = root.ledger_file.read_bytes()
    root.ledger_file.write_bytes(content[:-4096] + b"\xff" * 4096)
    with pytest.raises(StoreError, match="damaged"):
        Ledger.open(root.ledger_file)
    with pytest.raises(BusyError, match=r"is held by .*tilemap nightly"):
        rebuild(root.path, LATER)


def test_the_token_is_never_used_twice(root: Root) -> None:
    """Who held the lock of the old ledger is known to be another one in the new."""
    with Ledger.open(root.ledger_file) as ledger:
        before = read_lock(ledger.database).token
    rebuild(root.path, LATER)
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        assert lock.token > before


def test_a_newer_ledger_is_no_reason_to_make_an_older_one(root: Root) -> None:
    """It stays, and what to do is told."""
    with closing(sqlite3.connect(root.ledger_file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="is of version 99"):
        rebuild(root.path, LATER)
    assert not list(root.path.glob("*.before-*"))


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    """Is not made; an empty one gets an empty ledger."""
    with pytest.raises(StoreError, match="there is no folder"):
        rebuild(tmp_path / "none", LATER)
    assert rebuild(tmp_path, LATER).products == 0
    assert (tmp_path / LEDGER_FILE).is_file()


def test_one_rebuild_at_a_time(root: Root) -> None:
    """Also where no ledger is there to hold the lock of."""
    root.ledger_file.unlink()
    handle = os.open(root.path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(BusyError, match="another rebuild of"):
        rebuild(root.path, LATER)
    os.close(handle)
    assert rebuild(root.path, LATER).products == 5


def test_a_root_that_cannot_be_written(root: Root) -> None:
    """Is told; the ledger is as it was."""
    before = root.known()
    (root.path / f".{LEDGER_FILE}.rebuilt").mkdir()
    with pytest.raises(StoreError, match=r"ledger\.sqlite cannot be rebuilt: "):
        rebuild(root.path, LATER)
    assert root.known() == before


def test_one_that_reads_makes_it_wait(root: Root) -> None:
    """A log that somebody still reads is not thrown away."""
    with Ledger.open(root.ledger_file) as ledger:
        ledger.begin_pass("two", Holder.here("a test"), NOW)
        reader = sqlite3.connect(root.ledger_file, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM pass").fetchall()
        ledger.begin_pass("three", Holder.here("a test"), NOW)
        with pytest.MonkeyPatch.context() as patch, closing(reader):
            patch.setattr("tilemap.nightly.database.BUSY_S", 0.05)
            with pytest.raises(BusyError, match="being read by another process"):
                rebuild(root.path, LATER)
    assert not list(root.path.glob("*.before-*"))
    assert rebuild(root.path, LATER).products == 5


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from tilemap.nightly import rebuild as module
calls = 0
for place, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync")):
    def wrapped(*args, _own=getattr(place, name), **more):
        global calls
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return _own(*args, **more)
    setattr(place, name, wrapped)
module.rebuild(Path(sys.argv[1]), datetime(2026, 11, 27, 2, 15, tzinfo=UTC))
"""


def test_a_rebuild_that_is_killed_leaves_a_whole_ledger(root: Root, tmp_path: Path) -> None:
    """At every step that syncs, renames or removes a file; the next rebuild is a whole one."""
    before = root.known()
    copy = tmp_path.parent / "copy"
    number = 0
    while True:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root.path, copy)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(copy), str(number)], check=False, timeout=60
        )
        assert Root(copy).known() == before
        assert rebuild(copy, LATER).products == 5
        assert Root(copy).known() == before
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        number += 1
    assert number > 8
