"""The ledger: files that are none, readers beside the writer, single questions."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import BusyError, StoreError
from tilemap.files import read_sealed
from tilemap.nightly.facts import Kind
from tilemap.nightly.ledger import (
    LEDGER_FILE,
    Ledger,
    product_from_json,
    product_to_json,
    quarantine_from_json,
    quarantine_to_json,
)
from tilemap.nightly.lock import Holder, acquire
from tilemap.nightly.pardon import forget

from .facts import ME, MEMORY, NOW, found, held, product, quarantine


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new one, in which a pass runs."""
    with Ledger.open(tmp_path / LEDGER_FILE) as opened:
        opened.begin_pass("one", ME, NOW)
        yield opened


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
            for how in (Ledger.open, Ledger.peek):
                with pytest.raises(StoreError, match=r"holds products, but no .*rebuild"):
                    how(tmp_path / LEDGER_FILE)
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
    """All of several threads get the one ledger, however they fall over each other."""
    for number in range(20):
        path = tmp_path / f"{number}.sqlite"
        errors: list[BaseException] = []
        barrier = threading.Barrier(4)
        work = (path, barrier, errors)
        threads = [threading.Thread(target=_make, args=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with Ledger.open(path, create=False) as ledger:
            assert ledger.passes() == []


def _make(path: Path, barrier: threading.Barrier, errors: list[BaseException]) -> None:
    try:
        barrier.wait()
        with Ledger.open(path) as ledger:
            ledger.scenes()
    except BaseException as error:
        errors.append(error)


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

    with ledger.together():
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
    values = {path.name: read_sealed(path) for path in folder.iterdir()}
    assert values == {f"{n}.json": quarantine_to_json(quarantine(n)) for n in ("a", "b")}


def test_a_quarantine_that_cannot_be_written_is_not_known(ledger: Ledger) -> None:
    """File and row, or neither."""
    (ledger.root / "quarantine").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        ledger.quarantine(quarantine())
    assert ledger.quarantined("pucallpa", "map", "1985") is None
    (ledger.root / "quarantine").unlink()
    ledger.quarantine(quarantine())
    assert ledger.quarantined("pucallpa", "map", "1985") == quarantine()


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    item=st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    fingerprint=st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=2), max_size=3),
    day=st.dates() | st.none(),
    published=st.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1), timezones=OFFSETS),
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


@pytest.mark.parametrize("kind", ["map", "change"])
def test_what_is_forgotten_is_not_set_aside_any_more(ledger: Ledger, kind: Kind) -> None:
    """A scene and a series alike; others stay as they are."""
    ledger.quarantine(quarantine("a", kind=kind))
    ledger.quarantine(quarantine("b", kind=kind))
    assert forget(ledger, "pucallpa", "a")
    assert ledger.quarantines() == [quarantine("b", kind=kind)]
    assert not forget(ledger, "pucallpa", "a")
