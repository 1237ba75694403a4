"""Who has lost the lock: stopped, taken over, replaced, forked; nothing of it is published."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import BusyError
from tilemap.nightly.database import side_files
from tilemap.nightly.facts import Found, Quarantine
from tilemap.nightly.ledger import LEDGER_FILE, Ledger
from tilemap.nightly.lock import (
    LostLockError,
    acquire,
    read_lock,
)

from .facts import ME, NOW
from .holders import ELSEWHERE, heard_from, holder, plant, take, tell


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new one."""
    with Ledger.open(tmp_path / LEDGER_FILE) as opened:
        yield opened


def test_a_stopped_process_that_was_taken_over_cannot_publish(
    tmp_path: Path, ledger: Ledger
) -> None:
    """It wakes, is refused with 75, leaves the lock to the new holder and publishes nothing."""
    with holder(tmp_path, lease_s=0.5) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.6)  # its lease
        with acquire(ledger, command="the next one") as lock:
            assert lock.token == 2
            process.send_signal(signal.SIGCONT)
            tell(process, "publish")
            assert process.wait(30) == 75
            assert process.stderr is not None
            text = process.stderr.read()
            assert text.startswith("LostLockError")
            assert "the next one" in text
            assert ledger.products(listed=None) == []
            lock.verify()
            assert read_lock(ledger.database).holder == lock.holder


def test_a_process_that_is_stopped_while_it_publishes_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can take over between its check and its commit; others are told to try again."""
    monkeypatch.setattr("tilemap.nightly.database.BUSY_S", 0.2)
    with holder(tmp_path, lease_s=0.5) as process, Ledger.open(tmp_path / LEDGER_FILE) as ledger:
        tell(process, "pause")
        assert heard_from(process) == "publishing"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.6)  # its lease
        with pytest.raises(BusyError, match="being written by another process"):
            take(ledger, datetime.now(UTC))
        process.send_signal(signal.SIGCONT)
        tell(process, "go on")
        assert heard_from(process) == "published"
        assert [one.version for one in ledger.products()] == ["v1"]
        with pytest.raises(BusyError, match="a holder"):
            take(ledger, datetime.now(UTC))
        tell(process, "leave")
        assert process.wait(30) == 0
    with Ledger.open(tmp_path / LEDGER_FILE) as ledger:
        assert take(ledger) == 2


def test_who_has_lost_it_writes_nothing_at_all(ledger: Ledger) -> None:
    """No scene, no attempt, no quarantine; reading is allowed, and the fence stays."""
    found = Found("a", "x", None, ("x.tif",), ())
    calls: list[Callable[[], Any]] = [
        lambda: ledger.see(found, NOW),
        lambda: ledger.gone("a", (), NOW),
        lambda: ledger.begin_pass("two", ME, NOW),
        lambda: ledger.end_pass("one", "ok", 0, NOW, {}),
        lambda: ledger.start("one", "a", "map", "x", "d", NOW),
        lambda: ledger.finish(1, "ok", NOW),
        lambda: ledger.interrupted(NOW),
        lambda: ledger.quarantine(Quarantine("a", "map", "x", "d", NOW, "r", 65)),
        lambda: ledger.release("a", "map", "x"),
    ]
    with Ledger.open(ledger.database.path) as second:
        with acquire(ledger, command="the first") as lock:
            ledger.begin_pass("one", ME, NOW)
            plant(second, ELSEWHERE)
            before = [*second.database.read("SELECT * FROM lock"), second.passes()]
            for call in calls:
                with pytest.raises(LostLockError, match="another-host"):
                    call()
            with pytest.raises(LostLockError), ledger.publishing(lock):
                pytest.fail("it must not come so far")
            assert lock.lost.is_set()
        for call in calls:
            with pytest.raises(LostLockError):
                call()
        assert [row.id for row in ledger.passes()] == ["one"]
        assert [*second.database.read("SELECT * FROM lock"), second.passes()] == before
        assert list(ledger.root.glob("quarantine/*/*")) == []


def test_a_lock_that_was_left_publishes_nothing(ledger: Ledger) -> None:
    """One that was released, and one of another time."""
    with acquire(ledger, command="a test") as old:
        pass
    with pytest.raises(LostLockError), ledger.publishing(old):
        pytest.fail("it must not come so far")
    with acquire(ledger, command="a test") as new:
        with pytest.raises(LostLockError), ledger.publishing(old):
            pytest.fail("it must not come so far")
        with ledger.publishing(new):
            pass


def test_the_beat_tells_that_it_is_lost(ledger: Ledger) -> None:
    """Long work can stop before it wants to publish."""
    with Ledger.open(ledger.database.path) as second, acquire(ledger, 0.05, "a test") as lock:
        assert not lock.lost.is_set()
        plant(second, ELSEWHERE)
        assert lock.lost.wait(30)


def test_a_ledger_that_was_replaced_is_not_written(tmp_path: Path) -> None:
    """Whoever opened the file before holds the lock of a file that is not there any more."""
    path = tmp_path / LEDGER_FILE
    Ledger.open(tmp_path / "new").close()
    with Ledger.open(path) as old, Ledger.open(path) as late:
        context = acquire(old, command="a test")
        lock = context.__enter__()
        for side in side_files(path):  # as a rebuild does
            side.unlink()
        (tmp_path / "new").replace(path)
        with pytest.raises(LostLockError), old.publishing(lock):
            pytest.fail("it must not come so far")
        with pytest.raises(BusyError, match="was replaced just now"):
            take(late)
        with Ledger.open(path) as new:
            assert take(new) == 1
            context.__exit__(None, None, None)
            old.close()
            late.close()
            assert side_files(path)[0].exists()  # those who leave the old file do not take it
            assert take(new) == 2
            assert read_lock(new.database).token == 2
    with Ledger.open(path) as ledger:
        assert take(ledger) == 3


FORKS = """
import os, sqlite3, sys
from pathlib import Path
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import acquire, now_utc
for number in range(25):
    with Ledger.open(Path(sys.argv[1])) as ledger:
        with acquire(ledger, 0.005) as lock:
            child = os.fork()
            if child == 0:
                sqlite3.connect(":memory:").execute("CREATE TABLE a (b)")
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            lock.verify()
            ledger.begin_pass(f"p{number}", lock.holder, now_utc())
        count = len(ledger.passes(1000))
sys.stdout.write(str(count))
"""


def test_a_forked_child_releases_nothing_and_is_not_stuck(tmp_path: Path) -> None:
    """It leaves the block as its parent would, and the parent still holds; SQLite works in it."""
    path = tmp_path / LEDGER_FILE
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(path)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "25", "")
    with Ledger.open(path) as ledger:
        assert read_lock(ledger.database).holder is None
