"""A pass: new scenes are done once and published whole; what fails is told and loses nothing."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import (
    BusyError,
    ConfigError,
    DiskFullError,
    OutputError,
    SceneError,
    StoreError,
    TilemapError,
    UsageError,
)
from tilemap.nightly import publishing
from tilemap.nightly.doing import ClusterLostError
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.inspection import check
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import LostLockError, acquire
from tilemap.nightly.pardon import retry
from tilemap.stores.catalog_check import check_tree

from .conftest import Nights


def told(outcome: PassOutcome) -> list[tuple[str, str, str]]:
    """Id, status and why of all work."""
    return [(d.id, d.status, d.why) for d in outcome.done]


def whole(nights: Nights) -> None:
    """Ledger, disk and catalog agree; nothing unfinished lies about."""
    with Ledger.peek(nights.root / "ledger.sqlite") as ledger:
        assert check(ledger, nights.root) == []
    assert check_tree(nights.products, checksums=True) == []
    assert list(nights.products.rglob(".*")) == []


def test_what_is_new_is_done_once(nights: Nights) -> None:
    """Two scenes, then none, then one more."""
    nights.bring("a_20200101.tif")
    nights.bring("b_20190101.tif")
    first = nights.night()
    assert told(first) == [("b_20190101", "ok", "new"), ("a_20200101", "ok", "new")]
    assert (first.status, first.exit_code) == ("ok", 0)
    whole(nights)
    assert told(nights.night()) == []
    nights.bring("c_20210101.tif")
    assert told(nights.night()) == [("c_20210101", "ok", "new")]
    assert nights.worked == ["coast/b_20190101", "coast/a_20200101", "coast/c_20210101"]
    assert set(nights.items()) == {"a_20200101", "b_20190101", "c_20210101"}
    whole(nights)


def test_changed_files_are_done_again(nights: Nights) -> None:
    """Under a new version; the old one stays for those who have it open, but not in the catalog."""
    path = nights.bring("a_20200101.tif")
    nights.night()
    before = nights.items()["a_20200101"]
    path.write_text("other pixels")
    os.utime(path, (1_600_000_100, 1_600_000_100))
    assert told(nights.night()) == [("a_20200101", "ok", "inputs changed")]
    after = nights.items()["a_20200101"]
    assert after != before
    assert (nights.products / "coast" / before / "landcover.tif").is_file()
    assert len(list((nights.root / "work" / "coast" / "a_20200101").iterdir())) == 1
    assert told(nights.night()) == []


def test_other_options_are_other_work(nights: Nights) -> None:
    """And another model likewise."""
    nights.bring("a_20200101.tif")
    nights.night()
    config = nights.config(segment={"core": 128})
    assert told(nights.night(config)) == [("a_20200101", "ok", "model or options changed")]
    config = nights.config(segment={"core": 128}, model="tilemap-demo-5class")
    assert told(nights.night(config)) == [("a_20200101", "ok", "model or options changed")]
    assert told(nights.night(config)) == []


def test_bad_scene_is_set_aside_and_the_rest_delivered(nights: Nights) -> None:
    """At once; it is not tried again until its files change."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.fails["a_20190101"] = SceneError("a_20190101.tif is truncated")
    outcome = nights.night()
    assert told(outcome) == [("a_20190101", "quarantined", "new"), ("b_20200101", "ok", "new")]
    assert (outcome.status, outcome.exit_code) == ("partial", 3)
    second = nights.night()
    assert (told(second), second.exit_code) == ([], 0)
    assert [q.reason for q in second.quarantined] == ["a_20190101.tif is truncated"]
    whole(nights)
    nights.fails.clear()
    nights.bring("a_20190101.tif", content="whole pixels")
    assert told(nights.night()) == [("a_20190101", "ok", "new")]
    assert nights.night().quarantined == ()


def test_what_may_pass_is_tried_again(nights: Nights) -> None:
    """Three passes; then it is set aside; `retry` lets it in again."""
    nights.bring("a_20190101.tif")
    nights.fails["a_20190101"] = StoreError("cannot read a chunk")
    assert told(nights.night()) == [("a_20190101", "failed", "new")]
    assert told(nights.night()) == [("a_20190101", "failed", "tried again")]
    assert told(nights.night()) == [("a_20190101", "quarantined", "tried again")]
    assert told(nights.night()) == []
    with Ledger.open(nights.root / "ledger.sqlite") as ledger, acquire(ledger):
        assert retry(ledger, "coast", "a_20190101") == [("coast", "map", "a_20190101")]
    nights.fails.clear()
    assert told(nights.night()) == [("a_20190101", "ok", "new")]


def test_bug_of_one_scene_does_not_end_the_pass(nights: Nights) -> None:
    """It is told as a bug, with its traceback in the log."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.fails["a_20190101"] = KeyError("oops")
    outcome = nights.night()
    assert told(outcome) == [("a_20190101", "failed", "new"), ("b_20200101", "ok", "new")]
    assert outcome.done[0].error == "a bug in tilemap: KeyError: 'oops'"
    assert outcome.done[0].exit_code == 70
    log = next((nights.root / "logs").glob("*.jsonl")).read_text()
    assert "Traceback" in log


def test_partial_map_is_published_and_continued(nights: Nights) -> None:
    """Three times; a fourth pass leaves it as it is."""
    config = nights.config(retention={"grace": "0s"})
    nights.bring("a_20190101.tif")
    nights.fails["a_20190101"] = "partial"
    first = nights.night(config)
    assert (told(first), first.exit_code) == ([("a_20190101", "partial", "new")], 3)
    assert first.done[0].error == "1 tiles failed, the first with: bad luck"
    for _ in range(2):
        folder = nights.items()["a_20190101"]
        assert told(nights.night(config)) == [("a_20190101", "partial", "some tiles were missing")]
        assert nights.items()["a_20190101"] != folder
    assert told(nights.night(config)) == []
    whole(nights)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClusterLostError("a Dask scheduler must answer at tls://nowhere:1 within 20 s"), 69),
        (OutputError("the run may need up to 3 GB"), 73),
        (DiskFullError("cannot write chunk (0, 0): disk quota exceeded"), 74),
        (DiskFullError("cannot write landcover.tif: no space is left"), 74),
    ],
)
def test_what_ends_a_pass(nights: Nights, error: TilemapError, code: int) -> None:
    """No cluster, no room: nothing else is begun, nothing counts as failed, all is left to do."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.fails["a_20190101"] = error
    outcome = nights.night()
    assert (outcome.status, outcome.exit_code) == ("failed", code)
    assert outcome.error == str(error)
    assert nights.worked == ["coast/a_20190101"]
    assert [w.id for w in outcome.waiting] == ["a_20190101", "b_20200101"]
    nights.fails.clear()
    assert told(nights.night()) == [("a_20190101", "ok", "new"), ("b_20200101", "ok", "new")]


def test_budget(nights: Nights) -> None:
    """When it is over nothing new is begun; what was begun ends; the rest is told and waits."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    nights.fails["a_20180101"] = lambda *_: time.sleep(0.3)
    outcome = nights.night(budget_s=0.2)
    assert told(outcome) == [("a_20180101", "ok", "new")]
    assert (outcome.status, outcome.exit_code) == ("over", 0)
    assert [w.id for w in outcome.waiting] == ["a_20190101", "a_20200101"]
    assert len(nights.night().done) == 2


def test_priority_goes_before_age(nights: Nights) -> None:
    """Areas of higher priority first, within them the oldest."""
    nights.bring("x_20200101.tif", "low")
    nights.bring("y_20210101.tif", "high")
    nights.bring("z_20220101.tif", "high")
    areas = [
        {"name": "low", "scenes": ["in/low"], "series": False},
        {"name": "high", "scenes": ["in/high"], "series": False, "priority": 1},
    ]
    nights.night(nights.config(areas=areas))
    assert nights.worked == ["high/y_20210101", "high/z_20220101", "low/x_20200101"]


def test_only_the_areas_asked_for(nights: Nights) -> None:
    """Others stay as they are, in the catalog too; a name that is none is an error."""
    nights.bring("x_20200101.tif", "one")
    nights.bring("y_20210101.tif", "two")
    areas = [{"name": n, "scenes": [f"in/{n}"], "series": False} for n in ("one", "two")]
    config = nights.config(areas=areas)
    nights.night(config, areas=("one",))
    nights.night(config, areas=("two",))
    assert nights.worked == ["one/x_20200101", "two/y_20210101"]
    assert nights.items("one")
    assert nights.items("two")
    with pytest.raises(UsageError, match="`area` must be one of one, two, got 'three'"):
        nights.night(config, areas=("three",))


def test_dry_run_touches_nothing(nights: Nights) -> None:
    """It tells what would be done, also where there was no pass yet."""
    nights.bring("a_20190101.tif")
    outcome = nights.night(dry=True)
    assert [(w.id, w.why) for w in outcome.waiting] == [("a_20190101", "new")]
    assert (outcome.dry, outcome.exit_code) == (True, 0)
    assert not nights.root.exists()
    nights.night()
    nights.bring("b_20200101.tif")
    before = {p: p.stat().st_mtime_ns for p in nights.root.rglob("*") if "sqlite" not in p.name}
    assert [w.id for w in nights.night(dry=True).waiting] == ["b_20200101"]
    after = {p: p.stat().st_mtime_ns for p in nights.root.rglob("*") if "sqlite" not in p.name}
    assert before == after


def test_source_that_is_gone_is_no_end(nights: Nights) -> None:
    """A mount that is not there: told, exit code 3, and no scene is forgotten."""
    path = nights.bring("a_20190101.tif")
    nights.night()
    path.parent.rename(nights.folder / "away")
    outcome = nights.night()
    assert (outcome.status, outcome.exit_code) == ("partial", 3)
    assert outcome.problems
    assert set(nights.items()) == {"a_20190101"}
    (nights.folder / "away").rename(path.parent)
    again = nights.night()
    assert (told(again), again.exit_code) == ([], 0)


def test_model_that_is_not_there(nights: Nights) -> None:
    """Of one area; another area goes on."""
    nights.bring("a_20190101.tif", "one")
    nights.bring("b_20190101.tif", "two")
    areas = [
        {"name": "one", "scenes": ["in/one"], "series": False, "model": "no-such-model"},
        {"name": "two", "scenes": ["in/two"], "series": False},
    ]
    outcome = nights.night(nights.config(areas=areas))
    assert told(outcome) == [("b_20190101", "ok", "new")]
    assert "no model 'no-such-model'" in outcome.problems[0].text
    assert outcome.exit_code == 3


# --- the lock ------------------------------------------------------------------------------------


def test_second_pass_says_who_is_at_work(nights: Nights) -> None:
    """It does nothing and exits 75."""
    nights.bring("a_20190101.tif")
    nights.root.mkdir()
    with (
        Ledger.open(nights.root / "ledger.sqlite") as ledger,
        acquire(ledger),
        pytest.raises(BusyError, match=rf"held by .*{os.getpid()}") as caught,
    ):
        nights.night()
    assert caught.value.exit_code == 75
    assert nights.worked == []


def test_who_lost_the_lock_publishes_nothing(nights: Nights) -> None:
    """Taken over while a scene is mapped: no product, no catalog, no summary; exit code 75."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")

    def take_over(*_: Any) -> None:
        import sqlite3

        with sqlite3.connect(nights.root / "ledger.sqlite") as connection:
            connection.execute("UPDATE lock SET token = token + 1")
        connection.close()

    nights.fails["a_20190101"] = take_over
    outcome = nights.night()
    assert outcome.exit_code == LostLockError.exit_code == 75
    assert nights.items() == {}
    assert not list(nights.products.glob("*/*/*"))
    assert nights.worked == ["coast/a_20190101"]


# --- the disk ------------------------------------------------------------------------------------


def test_full_disk_in_publishing(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 74; the product has no name and no half; the next pass publishes it."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    real = publishing.link_or_copy

    def full(source: Path, target: Path) -> None:
        if target.name == "confidence.tif" and "b_2020" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(publishing, "link_or_copy", full)
    outcome = nights.night()
    assert (outcome.status, outcome.exit_code) == ("failed", 74)
    assert "No space left on device" in str(outcome.error)
    assert set(nights.items()) == {"a_20190101"}
    whole(nights)
    monkeypatch.setattr(publishing, "link_or_copy", real)
    assert told(nights.night()) == [("b_20200101", "ok", "new")]
    whole(nights)


def test_full_disk_of_the_ledger(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is told all the same; exit code 74."""
    nights.bring("a_20190101.tif")
    nights.night()
    nights.bring("b_20200101.tif")

    def full(*_: Any, **__: Any) -> None:
        raise DiskFullError("ledger.sqlite cannot be read or written: database or disk is full")

    with monkeypatch.context() as patch:
        for name in ("finish", "end_pass"):
            patch.setattr(Ledger, name, full)
        outcome = nights.night()
    assert (outcome.status, outcome.exit_code) == ("failed", 74)
    summary = (nights.root / "summary.json").read_text()
    assert "disk is full" in summary
    assert told(nights.night()) == []  # it was published before it could be written down
    assert set(nights.items()) == {"a_20190101", "b_20200101"}
    whole(nights)


@pytest.mark.parametrize("at", ["stage", "rename", "catalog"])
def test_killed_in_publishing(nights: Nights, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Before the name, after it, after the catalog: the next pass sets it right, nothing twice."""
    nights.bring("a_20190101.tif")
    nights.night()
    nights.bring("b_20200101.tif")

    def die(*_: Any, **__: Any) -> None:
        raise SystemExit(9)  # leaves as a kill would: no `finally` of ours cleans what is named

    with monkeypatch.context() as patch:
        patch.setattr(publishing.shutil, "rmtree", lambda *_, **__: None)
        if at == "stage":
            patch.setattr(publishing, "sync_folder", die)
        elif at == "rename":
            patch.setattr(publishing, "sync_catalog", die)
        else:
            real = publishing.sync_catalog
            patch.setattr(publishing, "sync_catalog", lambda *a: (real(*a), die()))
        with pytest.raises(SystemExit):
            nights.night()
    outcome = nights.night()
    assert outcome.exit_code == 0
    assert set(nights.items()) == {"a_20190101", "b_20200101"}
    assert len(list((nights.products / "coast" / "b_20200101").iterdir())) == 1
    assert nights.worked.count("coast/b_20200101") == (2 if at == "stage" else 1)
    whole(nights)


def test_product_that_is_gone_is_made_again(nights: Nights) -> None:
    """Somebody removed a folder by hand."""
    import shutil

    nights.bring("a_20190101.tif")
    nights.night()
    shutil.rmtree(nights.products / "coast" / nights.items()["a_20190101"])
    assert told(nights.night()) == [("a_20190101", "ok", "new")]
    whole(nights)


# --- the catalog ---------------------------------------------------------------------------------


def test_items_as_geoparquet(nights: Nights) -> None:
    """A table of each area, named by its collection; its addresses start where it lies."""
    from tilemap.stores.geoparquet import read_geoparquet

    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    config = nights.config(catalog={"geoparquet": True})
    nights.night(config)
    table = nights.products / "coast" / "items.parquet"
    items = read_geoparquet(table)
    assert sorted(item["id"] for item in items) == ["coast-a_20190101", "coast-b_20200101"]
    for item in items:
        assert (table.parent / item["assets"]["landcover"]["href"]).is_file()
    whole(nights)
    before = table.stat().st_mtime_ns
    nights.night(config)
    assert table.stat().st_mtime_ns == before


# --- retention -----------------------------------------------------------------------------------


def test_newest_dates_are_kept(nights: Nights) -> None:
    """Older ones leave the catalog, and the disk after the grace; they are not mapped again."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    nights.night()
    config = nights.config(retention={"keep_dates": 2, "grace": "0s"})
    outcome = nights.night(config)
    assert set(nights.items()) == {"a_20190101", "a_20200101"}
    assert [folder.split("/")[1] for folder in outcome.removed] == ["a_20180101"]
    assert not (nights.products / "coast" / "a_20180101").exists()
    assert told(nights.night(config)) == []
    whole(nights)


def test_grace(nights: Nights) -> None:
    """A version that was replaced stays as long as it says."""
    path = nights.bring("a_20200101.tif")
    nights.night()
    old = nights.products / "coast" / nights.items()["a_20200101"]
    path.write_text("other pixels")
    os.utime(path, (1_600_000_100, 1_600_000_100))
    assert nights.night().removed == ()
    assert old.is_dir()
    assert nights.night(nights.config(retention={"grace": "0s"})).removed
    assert not old.exists()
    whole(nights)


def test_what_the_catalog_names_is_never_removed(nights: Nights) -> None:
    """Even if the ledger were wrong about it."""
    import sqlite3

    nights.bring("a_20200101.tif")
    nights.night()
    folder = nights.products / "coast" / nights.items()["a_20200101"]
    from tilemap.nightly.places import Places
    from tilemap.nightly.retention import named_folders, to_remove

    with sqlite3.connect(nights.root / "ledger.sqlite") as connection:
        connection.execute("UPDATE product SET listed = 0, unlisted = '2020-01-01T00:00:00+00:00'")
    connection.close()
    with Ledger.peek(nights.root / "ledger.sqlite") as ledger:
        every = ledger.products(listed=None)
    named = named_folders(Places(nights.root))
    assert to_remove(every, named, 0, datetime.now(UTC)) == []
    assert to_remove(every, (), 0, datetime.now(UTC)) == []  # nothing is in its place
    other = replace(every[0], folder="coast/a_20200101/other", listed=True)
    assert to_remove([*every, other], (), 0, datetime.now(UTC)) == every
    assert folder.is_dir()


def test_clock_that_jumped_back(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year back: scenes are found, done and told; nothing is removed; ids do not collide."""
    from tilemap.nightly import passing

    nights.bring("a_20190101.tif")
    first = nights.night()

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return first.started.replace(microsecond=0) - timedelta(days=365)

    monkeypatch.setattr(passing, "datetime", Earlier)
    nights.bring("b_20200101.tif")
    second = nights.night()
    assert told(second) == [("b_20200101", "ok", "new")]
    third = nights.night()
    assert third.id == f"{second.id}-2"
    assert third.done == ()
    assert set(nights.items()) == {"a_20190101", "b_20200101"}


def test_ledger_of_a_newer_version(nights: Nights) -> None:
    """Refused in words, with exit code 78; not touched."""
    import sqlite3

    nights.bring("a_20190101.tif")
    nights.night()
    path = nights.root / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    nights.bring("b_20190101.tif")
    with pytest.raises(ConfigError, match="999") as caught:
        nights.night()
    assert caught.value.exit_code == 78
    assert nights.worked == ["coast/a_20190101"]
