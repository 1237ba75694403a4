"""The ledger made anew from disk, and where the two disagree: on trees made by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import BusyError, ConfigError, StoreError
from tilemap.nightly.database import side_files
from tilemap.nightly.facts import Found, Product, Quarantine
from tilemap.nightly.ledger import LEDGER_FILE, Ledger, product_to_json
from tilemap.nightly.lock import Holder, acquire, read_lock
from tilemap.nightly.pardon import forget
from tilemap.nightly.rebuild import check, rebuild, strays

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


class Root:
    """Products as a pass publishes them, in a ledger and on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.products = path / "products"
        self.ledger_file = path / LEDGER_FILE

    def publish(self, key: str, version: str, number: int = 1, **changes: Any) -> Product:
        """One more product: files, item, work.json, row."""
        made = self.stage(key, version, number, **changes)
        with Ledger.open(self.ledger_file) as ledger, acquire(ledger) as lock:
            with ledger.publishing(lock) as publication:
                publication.add(made)
                listed = publication.products()
            self.catalogue(listed)
        return made

    def stage(self, key: str, version: str, number: int = 1, **changes: Any) -> Product:
        """Its folder only, as a kill before the commit leaves it."""
        area = changes.get("area", "pucallpa")
        folder = self.products / area / key / version
        folder.mkdir(parents=True)
        content = f"{key} {version}".encode() * 100
        (folder / "landcover.tif").write_bytes(content)
        item = {
            "id": f"{area}-{key}",
            "assets": {
                "landcover": {
                    "href": "./landcover.tif",
                    "file:size": len(content),
                    "file:checksum": f"1220{hashlib.sha256(content).hexdigest()}",
                },
                "source": {"href": "https://example.org/scene.tif", "file:size": 3},
            },
        }
        made = Product(
            area=area, kind="change" if key == "change" else "map", id=key, version=version,
            digest=version * 8, result="r" + version, day=date(2020, 1, number), status="ok",
            folder=f"{area}/{key}/{version}", run=f"work/{area}/{key}/{version}", item=item,
            published=NOW + timedelta(minutes=number), pixels=12, km2=0.5, seconds=1.25,
            sources={"a": "/in/a.tif"}, fingerprint=({"name": "a.tif", "size": 9},),
        )  # fmt: skip
        made = replace(made, **changes)
        (folder / "item.json").write_text(json.dumps(item))
        (folder / "work.json").write_text(json.dumps(product_to_json(made)))
        return made

    def catalogue(self, listed: list[Product]) -> None:
        """Write the catalog of these."""
        areas = sorted({one.area for one in listed})
        for path in self.products.glob("*/collection.json"):
            path.unlink()
        for area in areas:
            links = [
                {"rel": "item", "href": f"./{one.id}/{one.version}/item.json"}
                for one in listed
                if one.area == area
            ]
            links.append({"rel": "root", "href": "../catalog.json"})
            text = json.dumps({"type": "Collection", "id": area, "links": links})
            (self.products / area / "collection.json").write_text(text)
        children = [{"rel": "child", "href": f"./{area}/collection.json"} for area in areas]
        text = json.dumps({"type": "Catalog", "id": "tilemap", "links": children})
        (self.products / "catalog.json").write_text(text)

    def known(self) -> dict[str, Any]:
        """What the ledger says but for the lock."""
        with Ledger.peek(self.ledger_file) as ledger:
            return {
                "products": ledger.products(listed=None),
                "left over": ledger.left_over(),
                "unmirrored": ledger.unmirrored(),
                "quarantine": ledger.quarantines(),
                "scenes": ledger.scenes(),
                "attempts": ledger.attempts(),
                "passes": ledger.passes(),
            }

    def disagreements(self, contents: bool = True) -> list[str]:
        """Where ledger and disk differ."""
        with Ledger.peek(self.ledger_file) as ledger:
            return check(ledger, self.path, contents)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Two areas: a scene made twice, one once, a series, one set aside, and some history."""
    made = Root(tmp_path)
    with Ledger.open(made.ledger_file) as ledger, acquire(ledger) as lock:
        ledger.begin_pass("one", lock.holder, NOW)
        for key in ("1985", "1990"):
            ledger.see(Found("pucallpa", key, date(1985, 8, 1), (f"/in/{key}.tif",), ()), NOW)
            number = ledger.start("one", "pucallpa", "map", key, "d", NOW)
            ledger.finish(number, "failed", NOW, "x", 65, 1.0, 0, {"tile": 1.0})
        ledger.quarantine(Quarantine("pucallpa", "map", "1990", "d", NOW, "is no raster", 65, 1))
        ledger.quarantine(Quarantine("ucayali", "change", "change", "d", NOW, "no two", 65, 3))
        ledger.end_pass("one", "partial", 3, NOW, {"a": 1})
    made.publish("1985", "v1", 1)
    made.publish("1985", "v2", 2)
    made.publish("2000", "w1", 3)
    made.publish("change", "c1", 4)
    made.publish("1999", "u1", 5, area="ucayali", day=None, km2=None, status="partial")
    return made


# --- made anew ---------------------------------------------------------------------------------


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
    assert "pucallpa/2000/w1: a product must have 'area'; it is left alone" in told
    assert "quarantine/pucallpa/1990.json: a quarantine cannot be read" in told
    with Ledger.peek(root.ledger_file) as ledger:
        assert ledger.product("pucallpa", "map", "1985") is None
        assert {one.folder for one in ledger.products(listed=False)} == {
            "pucallpa/1985/v1", "pucallpa/1985/v2",
        }  # fmt: skip
        assert [one.area for one in ledger.quarantines()] == ["ucayali"]


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
        with pytest.raises(BusyError, match="is held by .*tilemap nightly"):
            rebuild(root.path, LATER)
        assert sorted(path.name for path in root.path.iterdir()) == before
        ledger.database.settle()
        content = root.ledger_file.read_bytes()
    root.ledger_file.write_bytes(content[:-4096] + b"\xff" * 4096)
    with pytest.raises(StoreError, match="damaged"):
        Ledger.open(root.ledger_file)
    with pytest.raises(BusyError, match="is held by .*tilemap nightly"):
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
calls, names = 0, ("replace", "unlink", "exists")
for name in names:
    def wrapped(self, *args, _own=getattr(Path, name), **more):
        global calls
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return _own(self, *args, **more)
    setattr(Path, name, wrapped)
module.rebuild(Path(sys.argv[1]), datetime(2026, 11, 27, 2, 15, tzinfo=UTC))
"""


def test_a_rebuild_that_is_killed_leaves_a_whole_ledger(root: Root, tmp_path: Path) -> None:
    """At every step that makes, renames or removes a file; the next rebuild is a whole one."""
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
    assert number > 10


# --- where they disagree -----------------------------------------------------------------------


def _remove_folder(root: Root) -> None:
    shutil.rmtree(root.products / "pucallpa/2000/w1")


def _remove_file(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/landcover.tif").unlink()


def _other_bytes(root: Root) -> None:
    path = root.products / "pucallpa/2000/w1/landcover.tif"
    path.write_bytes(path.read_bytes()[::-1])


def _other_size(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/landcover.tif").write_bytes(b"abc")


def _no_item(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/item.json").write_text("[1]")


def _other_work(root: Root) -> None:
    path = root.products / "pucallpa/2000/w1/work.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pixels": 13}))


def _no_work(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/work.json").unlink()


def _stray(root: Root) -> None:
    root.stage("2010", "s1")


def _half(root: Root) -> None:
    root.stage("2010", "s1")
    (root.products / "pucallpa/2010/s1/landcover.tif").unlink()


def _not_named(root: Root) -> None:
    listed = [one for one in root.known()["products"] if one.listed and one.id != "2000"]
    root.catalogue(listed)


def _named_too(root: Root) -> None:
    root.catalogue([one for one in root.known()["products"] if one.version != "v2"])


def _no_collection(root: Root) -> None:
    (root.products / "pucallpa/collection.json").unlink()


def _catalog_does_not_name(root: Root) -> None:
    path = root.products / "catalog.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "links": value["links"][:1]}))


def _quarantine_row_only(root: Root) -> None:
    (root.path / "quarantine/pucallpa/1990.json").unlink()


def _quarantine_file_only(root: Root) -> None:
    folder = root.path / "quarantine/pucallpa"
    value = json.loads((folder / "1990.json").read_text())
    (folder / "2000.json").write_text(json.dumps({**value, "id": "2000"}))


def _quarantine_differs(root: Root) -> None:
    path = root.path / "quarantine/pucallpa/1990.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attempts": 9}))


def _quarantine_of_another(root: Root) -> None:
    path = root.path / "quarantine/pucallpa/1990.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id": "other"}))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_remove_folder, ["pucallpa/2000/w1: its folder is gone"]),
        (_remove_file, ["pucallpa/2000/w1: landcover.tif is gone"]),
        (_other_bytes, ["pucallpa/2000/w1: landcover.tif has other bytes than were published"]),
        (_other_size, ["pucallpa/2000/w1: landcover.tif must have 700 bytes, it has 3"]),
        (_no_item, ["pucallpa/2000/w1: its item.json is gone or is no item"]),
        (_other_work, ["pucallpa/2000/w1: pixels differs between ledger and work.json"]),
        (_no_work, ["pucallpa/2000/w1: its work.json is gone or is no JSON"]),
        (_stray, ["pucallpa/2010/s1: not in the ledger; the next pass takes it in"]),
        (_half, ["pucallpa/2010/s1: not in the ledger; landcover.tif is gone"]),
        (_not_named, ["pucallpa/2000/w1: listed, but the catalog does not name it"]),
        (
            _named_too,
            [
                "pucallpa/1985/v1: the catalog names it, but it is not listed",
                "pucallpa/1985/v2: listed, but the catalog does not name it",
            ],
        ),
        (_no_collection, ["pucallpa: its collection.json is gone or is no collection"]),
        (_catalog_does_not_name, ["ucayali: catalog.json does not name it"]),
        (
            _quarantine_row_only,
            ["quarantine/pucallpa/1990.json: in the ledger, but the file is gone"],
        ),
        (_quarantine_file_only, ["quarantine/pucallpa/2000.json: not in the ledger"]),
        (_quarantine_differs, ["quarantine/pucallpa/1990.json: differs from the ledger"]),
        (_quarantine_of_another, ["quarantine/pucallpa/1990.json: it is of pucallpa/other"]),
    ],
)
def test_each_disagreement_is_told(
    root: Root, harm: Callable[[Root], None], told: list[str]
) -> None:
    """In a line that names the place; by sizes alone all but other bytes of the same size."""
    assert root.disagreements() == []
    harm(root)
    assert root.disagreements() == told
    assert root.disagreements(contents=False) == ([] if harm is _other_bytes else told)


def test_a_product_between_its_name_and_its_commit_is_a_stray(root: Root) -> None:
    """Whole ones that no row knows, the older first, to be taken in; what is half is not."""
    late, early = root.stage("2011", "s1", 9), root.stage("2010", "s1", 8)
    root.stage("2012", "s1")
    (root.products / "pucallpa/2012/s1/landcover.tif").unlink()
    root.stage("2013", "s1")
    shutil.move(root.products / "pucallpa/2013/s1", root.products / "pucallpa/2013/s2")
    shutil.copytree(root.products / "pucallpa/2010/s1", root.products / "pucallpa/2010/.staged-s2")
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        found = strays(ledger, root.path)
        assert found == [early, late]
        with ledger.publishing(lock) as publication:
            for one in found:
                publication.add(one)
        assert strays(ledger, root.path) == []


def test_a_product_that_is_removed_here_only_is_no_stray(root: Root) -> None:
    """It is known until it is gone from where it was mirrored to."""
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        (one,) = ledger.products(listed=False)
        with ledger.publishing(lock) as publication:
            publication.mirrored(one)
            publication.removed(one)
        assert strays(ledger, root.path) == []
        assert root.disagreements() == [f"{one.folder}: removed in the ledger, but still there"]
        shutil.rmtree(root.products / one.folder)
        assert root.disagreements() == []


def test_a_forgotten_product_does_not_differ(root: Root) -> None:
    """The ledger withholds its digest, the disk has it."""
    with Ledger.open(root.ledger_file) as ledger:
        forget(ledger, "pucallpa", "2000")
    assert root.disagreements() == []
