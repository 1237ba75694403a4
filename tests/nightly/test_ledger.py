"""The ledger: what a plain Python model of it says, at any kill, of any version."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tilemap.errors import BusyError, ConfigError, StoreError
from tilemap.nightly import migrations
from tilemap.nightly.database import side_files
from tilemap.nightly.facts import Found, Product, Quarantine
from tilemap.nightly.ledger import (
    LEDGER_FILE,
    Ledger,
    product_from_json,
    product_to_json,
    quarantine_from_json,
    quarantine_to_json,
)
from tilemap.nightly.lock import Holder, Lock, acquire
from tilemap.nightly.pardon import forget, retry

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)
ME = Holder.here("a test")
HERE = Path(__file__).parent
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing: thousands of them say no more than one."""


def found(key: str = "1985", mtime: int = 1, **changes: Any) -> Found:
    """A scene of one file."""
    scene = Found(
        "pucallpa", key, date(1985, 8, 1), (f"/in/{key}.tif",),
        ({"name": f"{key}.tif", "size": 9, "mtime_ns": mtime},), newest=12.5,
    )  # fmt: skip
    return replace(scene, **changes)


def product(key: str = "1985", version: str = "ab12", **changes: Any) -> Product:
    """A map of it."""
    made = Product(
        area="pucallpa", kind="map", id=key, version=version, digest=version * 16, result="r",
        day=date(1985, 8, 1), status="ok", folder=f"pucallpa/{key}/{version}",
        run=f"work/pucallpa/{key}/{version}", item={"id": key, "assets": {"b": 1, "a": 2}},
        published=NOW, pixels=12, km2=0.5, seconds=1.25, sources={"title": "/in/a.tif"},
        fingerprint=({"name": "a.tif", "size": 9},),
    )  # fmt: skip
    return replace(made, **changes)


def quarantine(key: str = "1985", **changes: Any) -> Quarantine:
    """What set it aside."""
    return replace(Quarantine("pucallpa", "map", key, "d", NOW, "is no raster", 65, 2), **changes)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new one, in which a pass runs."""
    with Ledger.open(tmp_path / LEDGER_FILE) as opened:
        opened.begin_pass("one", ME, NOW)
        yield opened


@contextmanager
def held(ledger: Ledger) -> Iterator[Lock]:
    """Its lock, with a command that tests know."""
    with acquire(ledger, command="a test") as lock:
        yield lock


# --- against a model ---------------------------------------------------------------------------

KEYS = st.sampled_from(["1985", "1990", "change"])
AREAS = st.sampled_from(["pucallpa", "ucayali"])
KINDS = st.sampled_from(["map", "change"])
DIGESTS = st.sampled_from(["d1", "d2"])
Work = tuple[str, str, str]


@dataclass
class Try:
    """An attempt in the model."""

    number: int
    pass_id: str
    work: Work
    digest: str
    status: str = "running"
    counts: bool = True
    steps: dict[str, float] = field(default_factory=dict)


class Model(RuleBasedStateMachine):
    """Any calls in any order, any clock, reopened at any time: the ledger says what dicts say."""

    @initialize()
    def begin(self) -> None:
        """An empty ledger and an empty model."""
        self.folder = TemporaryDirectory(dir=MEMORY)
        self.path = Path(self.folder.name) / LEDGER_FILE
        self.scenes: dict[tuple[str, str], tuple[Found, str, datetime, datetime, str]] = {}
        self.tries: list[Try] = []
        self.products: dict[str, Product] = {}
        self.forgotten: set[str] = set()
        self.mirrored: set[str] = set()
        self.left_over: set[str] = set()
        self.quarantined: dict[Work, Quarantine] = {}
        self.passes: list[str] = []
        self._open()
        self._next_pass()

    def _open(self) -> None:
        self.ledger = Ledger.open(self.path)
        self.context = acquire(self.ledger, command="a test")
        self.lock = self.context.__enter__()

    def _next_pass(self) -> None:
        self.passes.append(f"p{len(self.passes)}")
        self.ledger.begin_pass(self.passes[-1], self.lock.holder, NOW)

    def teardown(self) -> None:
        """Close the file."""
        if hasattr(self, "folder"):
            self.context.__exit__(None, None, None)
            self.ledger.close()
            self.folder.cleanup()

    @rule()
    def reopen(self) -> None:
        """The process ends without a word of what was under way; the next one begins."""
        self.context.__exit__(None, None, None)
        self.ledger.close()
        self._open()
        under_way = [one for one in self.tries if one.status == "running"]
        assert self.ledger.interrupted(NOW) == len(under_way)
        for one in under_way:
            one.status = "interrupted"
        self._next_pass()

    @rule(area=AREAS, key=KEYS, mtime=st.integers(1, 2), hours=st.integers(-50, 50))
    def see(self, area: str, key: str, mtime: int, hours: int) -> None:
        """The same files count as seen from the next pass on, whatever the clock says."""
        scene, now = found(key, mtime, area=area), NOW + timedelta(hours=hours)
        before = self.scenes.get((area, key))
        same = before is not None and before[0].fingerprint == scene.fingerprint
        expected = before is not None and same and before[4] != self.passes[-1]
        assert self.ledger.see(scene, now) is expected
        first = now if before is None else before[2]
        since = before[4] if before is not None and same else self.passes[-1]
        self.scenes[area, key] = (scene, scene.state, first, now, since)

    @rule(area=AREAS, there=st.sets(KEYS))
    def gone(self, area: str, there: set[str]) -> None:
        """What was not seen is gone, and known still."""
        self.ledger.gone(area, there, NOW)
        for (where, key), (scene, _, first, last, since) in self.scenes.items():
            if where == area and key not in there:
                self.scenes[where, key] = (scene, "gone", first, last, since)

    @rule(area=AREAS, kind=KINDS, key=KEYS, digest=DIGESTS)
    def start(self, area: str, kind: Any, key: str, digest: str) -> None:
        """Numbers only grow."""
        number = self.ledger.start(self.passes[-1], area, kind, key, digest, NOW)
        assert all(number > one.number for one in self.tries)
        self.tries.append(Try(number, self.passes[-1], (area, kind, key), digest))

    @precondition(lambda self: self.tries)
    @rule(
        data=st.data(),
        status=st.sampled_from(["ok", "partial", "failed", "quarantined"]),
        steps=st.dictionaries(st.sampled_from(["tile", "segment"]), st.floats(0, 9)),
    )
    def finish(self, data: st.DataObject, status: Any, steps: dict[str, float]) -> None:
        """What has ended stays as it ended."""
        one = data.draw(st.sampled_from(self.tries))
        self.ledger.finish(one.number, status, NOW, "e", 65, 1.5, 7, steps)
        if one.status == "running":
            one.status, one.steps = status, steps

    @rule(area=AREAS, kind=KINDS, key=KEYS, version=st.sampled_from(["v1", "v2"]))
    def publish(self, area: str, kind: Any, key: str, version: str) -> None:
        """One is listed of each work; the one before is given back."""
        folder = f"{area}/{kind}-{key}/{version}"
        made = product(key, version, area=area, kind=kind, folder=folder)
        before = [p for p in self.products.values() if p.listed and _work(p) == (area, kind, key)]
        with self.ledger.publishing(self.lock) as publication:
            replaced = publication.add(made)
            assert made in publication.products()
        expected = [replace(p, listed=False, unlisted=NOW) for p in before if p.folder != folder]
        assert replaced == next(iter(map(self._told, expected)), None)
        self.products.update({p.folder: p for p in expected})
        self.products[folder] = made
        self.forgotten.discard(folder)
        self.mirrored.discard(folder)
        self.left_over.discard(folder)

    @precondition(lambda self: self.products)
    @rule(
        data=st.data(),
        what=st.sampled_from(["unlist", "removed", "mirrored", "unmirrored"]),
        fails=st.booleans(),
    )
    def change_product(self, data: st.DataObject, what: str, fails: bool) -> None:
        """Each change of what is published, or none of it if an error comes after."""
        one = data.draw(st.sampled_from(list(self.products.values())))
        try:
            with self.ledger.publishing(self.lock) as publication:
                if what == "unlist":
                    publication.unlist(one, NOW)
                else:
                    getattr(publication, what)(one)
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        if what == "unlist" and one.listed:
            self.products[one.folder] = replace(one, listed=False, unlisted=NOW)
        if what == "mirrored":
            self.mirrored.add(one.folder)
        if what == "unmirrored":
            self.mirrored.discard(one.folder)
        if what == "removed":
            del self.products[one.folder]
            if one.folder in self.mirrored:
                self.left_over.add(one.folder)

    @precondition(lambda self: self.left_over)
    @rule(data=st.data())
    def forget_left_over(self, data: st.DataObject) -> None:
        """Once it is gone where it was mirrored to, nothing is left."""
        folder = data.draw(st.sampled_from(sorted(self.left_over)))
        (one,) = [p for p in self.ledger.left_over() if p.folder == folder]
        with self.ledger.publishing(self.lock) as publication:
            publication.unmirrored(one)
        self.left_over.remove(folder)
        self.mirrored.discard(folder)

    @rule(area=AREAS, kind=KINDS, key=KEYS, digest=DIGESTS)
    def set_aside(self, area: str, kind: Any, key: str, digest: str) -> None:
        """The last one counts."""
        if kind == "change":
            key = "change"
        elif key == "change":
            return  # discovery gives no such id
        one = quarantine(key, area=area, kind=kind, digest=digest)
        self.ledger.quarantine(one)
        self.quarantined[area, kind, key] = one

    @rule(area=AREAS, kind=KINDS, key=KEYS)
    def release(self, area: str, kind: Any, key: str) -> None:
        """Whether there was something to release."""
        was = self.quarantined.pop((area, kind, key), None) is not None
        if (kind == "change") is (key == "change"):
            assert self.ledger.release(area, kind, key) is was

    @rule(area=AREAS | st.none(), key=KEYS | st.none())
    def retry(self, area: str | None, key: str | None) -> None:
        """Failures count no more, and nothing is set aside."""
        key = None if area is None else key

        def meant(work: Work) -> bool:
            return (area is None or work[0] == area) and (key is None or work[2] == key)

        failed = [
            one for one in self.tries
            if meant(one.work) and one.counts and one.status in ("failed", "partial")
        ]  # fmt: skip
        aside = [work for work in self.quarantined if meant(work)]
        assert retry(self.ledger, area, key) == sorted({*aside, *(one.work for one in failed)})
        for one in failed:
            one.counts = False
        for work in aside:
            del self.quarantined[work]

    @rule(area=AREAS, key=KEYS)
    def forget(self, area: str, key: str) -> None:
        """Nothing is known any more but what is published, as the work of nobody."""
        listed = [p for p in self.products.values() if p.listed and (p.area, p.id) == (area, key)]
        aside = [work for work in self.quarantined if (work[0], work[2]) == (area, key)]
        tries = [one for one in self.tries if (one.work[0], one.work[2]) == (area, key)]
        scene = self.scenes.pop((area, key), None)
        assert forget(self.ledger, area, key) is bool(listed or aside or tries or scene)
        self.forgotten |= {p.folder for p in listed}
        for work in aside:
            del self.quarantined[work]
        self.tries = [one for one in self.tries if one not in tries]

    @invariant()
    def agree(self) -> None:
        """Every question has the model's answer, and a copy has the same."""
        if not hasattr(self, "ledger"):
            return
        with Ledger.peek(self.path) as copy:
            for ledger in (self.ledger, copy):
                self._agree(ledger)

    def _agree(self, ledger: Ledger) -> None:
        rows = {(r.found.area, r.found.id): r for r in ledger.scenes()}
        assert {
            key: (row.found, row.state, row.first_seen, row.last_seen) for key, row in rows.items()
        } == {key: value[:4] for key, value in self.scenes.items()}
        tries = [
            (r.number, r.pass_id, (r.area, r.kind, r.id), r.digest, r.status, r.counts, r.steps)
            for r in reversed(ledger.attempts(last=10**6))
        ]
        assert tries == [
            (t.number, t.pass_id, t.work, t.digest, t.status, t.counts, t.steps) for t in self.tries
        ]
        for work in {one.work for one in self.tries}:
            for digest in ("d1", "d2"):
                failures = [
                    one for one in self.tries
                    if (one.work, one.digest) == (work, digest)
                    and one.counts and one.status in ("failed", "partial")
                ]  # fmt: skip
                assert ledger.failures(*work, digest) == len(failures)  # type: ignore[arg-type]
        products = {p.folder: p for p in ledger.products(listed=None)}
        assert products == {p.folder: self._told(p) for p in self.products.values()}
        assert {p.folder for p in ledger.left_over()} == self.left_over
        listed = {p.folder for p in self.products.values() if p.listed}
        assert {p.folder for p in ledger.unmirrored()} == listed - self.mirrored
        assert {_work(q): q for q in ledger.quarantines()} == self.quarantined
        files = self.path.parent.glob("quarantine/*/*.json")
        values = [quarantine_from_json(json.loads(path.read_text())) for path in files]
        assert {_work(q): q for q in values} == self.quarantined
        assert [row.id for row in reversed(ledger.passes(10**6))] == self.passes

    def _told(self, one: Product) -> Product:
        return replace(one, digest="") if one.folder in self.forgotten else one


def _work(one: Product | Quarantine) -> Work:
    return one.area, one.kind, one.id


TestModel = Model.TestCase
TestModel.settings = settings(stateful_step_count=25)


# --- killed ------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, list[Any]]:
    """All rows of a sound file, but of the lock, which beats."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        tables = ("pass", "scene", "attempt", "timing", "product", "quarantine")
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in tables
        }


@pytest.fixture(scope="module")
def driver() -> Any:
    """The script whose process is killed, as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("killed_ledger", HERE / "killed_ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _states(driver: Any, base: Path, end: Path) -> list[dict[str, list[Any]]]:
    """What a ledger says before the steps and after each; with the files of the last one."""
    states: list[dict[str, list[Any]]] = []
    base.mkdir()
    with Ledger.open(base / LEDGER_FILE) as ledger, acquire(ledger) as lock:
        driver.prepare(ledger, lock)
    root = base.with_name("undisturbed")
    shutil.copytree(base, root)
    with Ledger.open(root / LEDGER_FILE) as ledger, acquire(ledger) as lock:
        states.append(contents(root / LEDGER_FILE))
        for step in driver.steps(ledger, lock):
            step()
            states.append(contents(root / LEDGER_FILE))
        shutil.copytree(root, end)  # the log still holds what the file does not
    return states


def test_a_kill_at_any_statement_leaves_before_or_after(tmp_path: Path, driver: Any) -> None:
    """Each transaction is there or is not, later kills see no less, and the next pass tidies up."""
    states = _states(driver, tmp_path / "base", tmp_path / "end")
    command = [sys.executable, str(HERE / "killed_ledger.py"), "points", str(tmp_path / "base")]
    (tmp_path / "out").mkdir()
    subprocess.run([*command, str(tmp_path / "out")], check=True, timeout=120)
    roots = sorted((tmp_path / "out").iterdir(), key=lambda root: int(root.name))
    found = [states.index(contents(root / LEDGER_FILE)) for root in roots]
    assert found == sorted(found)
    assert set(found) == set(range(len(states)))
    assert len(found) > 3 * len(states)  # else statements are not counted
    for root in roots:
        with Ledger.open(root / LEDGER_FILE) as ledger, acquire(ledger) as lock:
            running = [one for one in ledger.attempts() if one.status == "running"]
            assert ledger.interrupted(NOW) == len(running)
            assert {one.status for one in ledger.attempts()} <= {"ok", "failed", "interrupted"}
            assert [one.status for one in ledger.passes()] == ["interrupted"]
            files = {path.stem for path in root.glob("quarantine/*/*.json")}
            assert files == {one.id for one in ledger.quarantines()}
            driver.publish(ledger, lock, 9)
            assert [one.version for one in ledger.products()] == ["v9"]


def test_a_log_cut_off_anywhere_is_read_up_to_a_whole_transaction(
    tmp_path: Path, driver: Any
) -> None:
    """Power that fails in the middle of a write: the first transactions are there."""
    states = _states(driver, tmp_path / "base", tmp_path / "end")
    path = tmp_path / "end" / LEDGER_FILE
    log = side_files(path)[0].read_bytes()
    assert len(log) > 20_000
    cuts = [*sorted(random.Random(1).sample(range(len(log)), 60)), len(log)]
    found = []
    for number, cut in enumerate(cuts):
        copy = tmp_path / str(number) / LEDGER_FILE
        copy.parent.mkdir()
        shutil.copyfile(path, copy)
        side_files(copy)[0].write_bytes(log[:cut])
        Ledger.open(copy).close()
        found.append(states.index(contents(copy)))
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == len(states) - 1


def test_a_kill_at_any_moment_leaves_before_or_after(tmp_path: Path) -> None:
    """A process that publishes as fast as it can: what it said is done is there, and one more."""
    chance = random.Random(2)
    reached = 0
    for number in range(8):
        root = tmp_path / str(number)
        root.mkdir()
        command = [sys.executable, str(HERE / "killed_ledger.py"), "loop", str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split("\n")
        said = [line for line in said[:-1] if line]  # the last one may be cut
        begun = max([1, *(int(line.split()[1]) for line in said if line.startswith("begin"))])
        done = max([0, *(int(line.split()[1]) for line in said if line.startswith("done"))])
        contents(root / LEDGER_FILE)
        with Ledger.peek(root / LEDGER_FILE) as ledger:
            made = len(ledger.products(listed=None))
            assert done <= made <= begun + 1
            assert [p.version for p in ledger.products()] == ([f"v{made}"] if made else [])
            assert [a.status for a in ledger.attempts(last=10**6)] == ["ok"] * made
            assert all(len(a.steps) == 2 for a in ledger.attempts(last=10**6))
        reached += made
    assert reached > 8  # else it was killed before it did anything


# --- versions ----------------------------------------------------------------------------------


def _schema(connection: sqlite3.Connection) -> str:
    """What the tables are, as one text."""
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return "".join(f"{row[0]};\n" for row in rows if not row[0].startswith("CREATE TABLE sqlite_"))


def _stored(version: int) -> Path:
    return HERE / "schemas" / f"version{version}.sql"


def _make(path: Path, version: int) -> None:
    """A ledger as tilemap of an older version left it, with a row in each table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_stored(version).read_text())


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS) + 1))
def test_a_released_step_still_makes_what_it_made(version: int, tmp_path: Path) -> None:
    """Steps up to each version give the stored schema: what is released is not edited."""
    _make(tmp_path / "stored", version)
    with (
        closing(sqlite3.connect(tmp_path / "stored")) as stored,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:version])
        migrations.migrate(made, tmp_path)
        assert _schema(made) == _schema(stored)
        for pragma in ("user_version", "application_id"):
            assert (
                made.execute(f"PRAGMA {pragma}").fetchall()
                == stored.execute(f"PRAGMA {pragma}").fetchall()
            )


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS) + 1))
@pytest.mark.parametrize("how", ["open", "peek"])
def test_an_older_ledger_keeps_what_it_knows(version: int, how: str, tmp_path: Path) -> None:
    """Every stored version, opened and looked at; looking leaves the file as it was."""
    path = tmp_path / LEDGER_FILE
    _make(path, version)
    before = path.read_bytes()
    with getattr(Ledger, how)(path) as ledger:
        (scene,) = ledger.scenes()
        assert scene.found.id == "1985"
        assert [row.id for row in ledger.passes()] == ["p1"]
        assert [row.steps for row in ledger.attempts()] == [{"tile": 0.5}]
        assert [row.folder for row in ledger.products()] == ["pucallpa/1985/ab12"]
        assert [row.reason for row in ledger.quarantines()] == ["is no raster"]
    with closing(sqlite3.connect(path)) as connection:
        now = migrations.version_of(connection)
    if how == "open":
        assert now == len(migrations.MIGRATIONS)
    else:
        assert path.read_bytes() == before


def test_a_step_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails leaves the version before it, with its tables; one that works is kept."""
    path = tmp_path / LEDGER_FILE
    Ledger.open(path).close()
    old = migrations.MIGRATIONS
    good = ("ALTER TABLE scene ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",)
    bad = ("ALTER TABLE scene ADD COLUMN other TEXT", "INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(migrations, "MIGRATIONS", (*old, good, bad))
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        Ledger.open(path)
    with closing(sqlite3.connect(path)) as connection:
        assert migrations.version_of(connection) == len(old) + 1
        names = [row[1] for row in connection.execute("PRAGMA table_info(scene)")]
    assert "note" in names
    assert "other" not in names
    monkeypatch.setattr(migrations, "MIGRATIONS", (*old, good))
    with Ledger.open(path) as ledger:
        assert ledger.scenes() == []


@pytest.mark.parametrize("how", [Ledger.open, Ledger.peek])
def test_a_newer_ledger_is_refused_and_not_touched(how: Any, tmp_path: Path) -> None:
    """Both versions and what to do are named; no byte of the folder changes."""
    path = tmp_path / LEDGER_FILE
    Ledger.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA journal_mode = DELETE")
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"is of version 99, this tilemap reads up to 1; use"):
        how(path)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


# --- what lies there is no ledger --------------------------------------------------------------


@pytest.mark.parametrize("how", [Ledger.open, Ledger.peek])
def test_a_damaged_ledger_says_what_to_do(how: Any, tmp_path: Path) -> None:
    """Bytes that are no database, a page that is overwritten, a file of something else."""
    path = tmp_path / LEDGER_FILE
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match=r"damaged .*tilemap ledger rebuild"):
        how(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(StoreError, match="no ledger of tilemap; move it away"):
        how(path)


def test_a_damaged_page_is_found_when_it_is_opened(tmp_path: Path) -> None:
    """Not in the middle of the night, when it is read."""
    path = tmp_path / LEDGER_FILE
    with Ledger.open(path) as ledger:
        ledger.begin_pass("one", ME, NOW)
        for number in range(300):
            ledger.start("one", "a", "map", f"scene{number}", "d", NOW)
    content = bytearray(path.read_bytes())
    content[-8192:-4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged .*tilemap ledger rebuild"):
        Ledger.open(path)


def test_a_root_with_products_but_no_ledger_is_not_begun_anew(tmp_path: Path) -> None:
    """All would be mapped once more; a rebuild is asked for. What is half staged does not count."""
    folder = tmp_path / "products" / "a" / "x"
    for name in (".staged-v1", "v1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "work.json").write_text("{}")
        if name == "v1":
            with pytest.raises(StoreError, match=r"holds products, but no .*rebuild"):
                Ledger.open(tmp_path / LEDGER_FILE)
            assert not (tmp_path / LEDGER_FILE).exists()
        else:
            Ledger.open(tmp_path / LEDGER_FILE).close()
            (tmp_path / LEDGER_FILE).unlink()


def test_there_is_none(tmp_path: Path) -> None:
    """Looking finds nothing and makes nothing; one that must be there is an error."""
    path = tmp_path / LEDGER_FILE
    with Ledger.peek(path) as ledger:
        assert not [*ledger.scenes(), *ledger.products(), *ledger.quarantines()]
        assert not ledger.seen(found())
        with pytest.raises(StoreError, match="cannot be read or written"):
            ledger.begin_pass("one", ME, NOW)
    with pytest.raises(StoreError, match="there is no ledger"):
        Ledger.open(path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_two_that_make_it_at_once(tmp_path: Path) -> None:
    """All of several threads get the one ledger."""
    path = tmp_path / LEDGER_FILE
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def make() -> None:
        try:
            barrier.wait()
            with Ledger.open(path) as ledger:
                ledger.scenes()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    contents(path)


# --- while a pass writes -----------------------------------------------------------------------


def test_looking_does_not_wait_and_leaves_nothing(tmp_path: Path) -> None:
    """A copy is of the last commit, is not written to, and makes no file beside the ledger."""
    path = tmp_path / LEDGER_FILE
    with Ledger.open(path) as ledger, held(ledger) as lock:
        ledger.begin_pass("one", ME, NOW)
        with ledger.publishing(lock) as publication:
            publication.add(product())
            with Ledger.peek(path) as copy:
                assert copy.products() == []
        with Ledger.peek(path) as copy:
            assert copy.products() == [product()]
            with pytest.raises(StoreError):
                copy.quarantine(quarantine())
    assert [p.name for p in tmp_path.iterdir()] == [LEDGER_FILE]
    with Ledger.peek(path) as copy:
        assert copy.products() == [product()]
    assert [p.name for p in tmp_path.iterdir()] == [LEDGER_FILE]


def test_a_writer_waits_for_another_and_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to try again; nothing of it is written."""
    monkeypatch.setattr("tilemap.nightly.database.BUSY_S", 0.05)
    path = tmp_path / LEDGER_FILE
    with Ledger.open(path) as one, Ledger.open(path) as two:
        with (
            one.database.transaction(),
            pytest.raises(BusyError, match="being written by another process"),
        ):
            two.begin_pass("two", ME, NOW)
        two.begin_pass("three", ME, NOW)
        assert [row.id for row in one.passes()] == ["three"]


def test_a_full_disk_publishes_nothing_and_is_survived(ledger: Ledger) -> None:
    """The transaction is undone, its error is one of storage, and there is room again later."""
    with held(ledger) as lock:
        with ledger.publishing(lock) as publication:
            publication.add(product())
        connection = ledger.database._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        big = product("1990", item={"id": "x" * 1_000_000})

        def change() -> None:
            with ledger.publishing(lock) as publication:
                publication.unlist(product(), NOW)
                publication.add(big)

        with pytest.raises(StoreError, match=r"cannot be read or written.*full") as caught:
            change()
        assert caught.value.exit_code == 74
        assert ledger.products() == [product()]
        connection.execute("PRAGMA max_page_count = 1000000")
        change()
        assert [one.id for one in ledger.products()] == ["1990"]


# --- single questions --------------------------------------------------------------------------


def test_an_error_inside_undoes_the_inner_part_only(ledger: Ledger) -> None:
    """A transaction within another one: the outer goes on without it, or takes it along."""

    def fail(key: str) -> None:
        with ledger.database.transaction():
            ledger.start("one", "a", "map", key, "d", NOW)
            raise ZeroDivisionError

    def lose() -> None:
        with ledger.database.transaction():
            ledger.start("one", "a", "map", "undone with the outer", "d", NOW)
            fail("undone")

    with ledger.database.transaction():
        ledger.start("one", "a", "map", "kept", "d", NOW)
        with pytest.raises(ZeroDivisionError):
            fail("undone")
    with pytest.raises(ZeroDivisionError):
        lose()
    assert [row.id for row in ledger.attempts()] == ["kept"]


def test_order_is_that_of_writing_when_the_clock_jumps_back(ledger: Ledger) -> None:
    """The newest pass and attempt are the last ones written; times are told as they were."""
    times = [NOW, NOW - timedelta(days=400), NOW - timedelta(hours=1)]
    numbers = []
    for count, now in enumerate(times):
        ledger.begin_pass(f"pass{count}", ME, now)
        numbers.append(ledger.start(f"pass{count}", "a", "map", "x", "d", now))
        ledger.finish(numbers[-1], "failed", now - timedelta(days=1), seconds=3.5)
    assert [row.id for row in ledger.passes()] == ["pass2", "pass1", "pass0", "one"]
    rows = ledger.attempts()
    assert [row.number for row in rows] == numbers[::-1]
    assert [row.began for row in rows] == times[::-1]
    assert {row.seconds for row in rows} == {3.5}
    assert ledger.failures("a", "map", "x", "d") == 3
    assert [row.number for row in ledger.attempts(last=2)] == numbers[:0:-1]


def test_a_time_without_offset_is_refused(ledger: Ledger) -> None:
    """It could be any zone's."""
    with pytest.raises(ValueError, match="must have an offset"):
        ledger.start("one", "a", "map", "x", "d", datetime(2026, 1, 1))
    east = NOW.astimezone(tz=datetime.strptime("+0530", "%z").tzinfo)
    ledger.start("one", "a", "map", "x", "d", east)
    assert ledger.attempts()[0].began.isoformat() == "2026-11-26T02:15:00+00:00"


def test_an_end_that_comes_late_changes_nothing(ledger: Ledger) -> None:
    """An attempt that another pass has settled as interrupted stays so."""
    number = ledger.start("one", "a", "map", "x", "d", NOW)
    with held(ledger):
        ledger.begin_pass("two", ME, NOW)
        mine = ledger.start("two", "a", "map", "y", "d", NOW)
        assert ledger.interrupted(NOW) == 1
        ledger.finish(number, "failed", NOW, steps={"tile": 1.0})
        ledger.finish(mine, "ok", NOW)
        assert {row.id: row.status for row in ledger.attempts()} == {"x": "interrupted", "y": "ok"}
        assert [(row.id, row.status) for row in ledger.passes()] == [
            ("two", "running"), ("one", "interrupted"),
        ]  # fmt: skip
    assert ledger.failures("a", "map", "x", "d") == 0


def test_a_pass_ends_with_what_it_told(ledger: Ledger) -> None:
    """Status, exit code and summary."""
    ledger.end_pass("one", "partial", 3, NOW + timedelta(hours=1), {"done": [1, 2]})
    (row,) = ledger.passes()
    assert (row.status, row.exit_code, row.summary) == ("partial", 3, {"done": [1, 2]})
    assert row.ended == NOW + timedelta(hours=1)
    assert Holder(**row.holder) == ME


def test_the_files_of_quarantines_are_made_to_agree(ledger: Ledger) -> None:
    """Whatever a kill or a person left: the next pass has a file for each row, and no other."""
    ledger.quarantine(quarantine("a"))
    ledger.quarantine(quarantine("b"))
    folder = ledger.root / "quarantine" / "pucallpa"
    (folder / "a.json").unlink()
    (folder / "b.json").write_text("{")
    (folder / "c.json").write_text(json.dumps(quarantine_to_json(quarantine("c"))))
    with held(ledger):
        ledger.interrupted(NOW)
    values = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    assert values == {f"{n}.json": quarantine_to_json(quarantine(n)) for n in ("a", "b")}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    item=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    fingerprint=st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=2), max_size=3),
    day=st.dates() | st.none(),
    published=st.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1), timezones=st.timezones()),
    km2=st.floats(0, 1e9) | st.none(),
    text=st.text(max_size=9),
)
def test_a_product_is_the_same_after_json_and_after_the_ledger(
    item: Any, fingerprint: Any, day: date | None, published: datetime, km2: float | None, text: str
) -> None:
    """All its fields, and the order of its item's."""
    made = product(
        item=item, fingerprint=tuple(fingerprint), day=day, published=published, km2=km2,
        digest=text + "d", sources={text: text},
    )  # fmt: skip
    value = json.loads(json.dumps(product_to_json(made)))
    assert product_from_json(value) == made
    assert not {"listed", "unlisted"} & value.keys()
    with TemporaryDirectory(dir=MEMORY) as folder, Ledger.open(Path(folder) / "l") as ledger:
        with acquire(ledger, command="a test") as lock, ledger.publishing(lock) as publication:
            publication.add(made)
        (told,) = ledger.products()
    assert told == made
    assert json.dumps(told.item) == json.dumps(item)


@given(data=st.data())
def test_json_that_is_no_product_is_told(data: st.DataObject) -> None:
    """A field that is missing, or of another type, is named; nothing else is raised."""
    value = product_to_json(product())
    name = data.draw(st.sampled_from(sorted(value)))
    odd = data.draw(st.just(None) | st.booleans() | st.just(["x"]) | st.just("no"))
    changed = {**value, name: odd}
    del value[name]
    with pytest.raises(StoreError, match=f"a product must have '{name}'"):
        product_from_json(value)
    try:
        told = product_to_json(product_from_json(changed))
    except StoreError as error:
        assert str(error).startswith("a product cannot be read")  # noqa: PT017 (it may be right)
    else:
        assert told == changed
    wholes: tuple[Any, ...] = (None, [], "x", 3)
    for whole in wholes:
        with pytest.raises(StoreError):
            product_from_json(whole)
        with pytest.raises(StoreError):
            quarantine_from_json(whole)
