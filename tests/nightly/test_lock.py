"""The lock: one holder at a time, the dead give way, the living do not, and no clock decides."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import BusyError, StoreError
from tilemap.nightly.ledger import LEDGER_FILE, Ledger
from tilemap.nightly.lock import (
    Holder,
    LockState,
    acquire,
    judge,
    process_start,
    read_lock,
)

from .facts import ME, NOW
from .holders import ELSEWHERE, heard_from, holder, plant, take, tell, until

FIRST_SPACE = "pid:[4026531836]"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new one."""
    with Ledger.open(tmp_path / LEDGER_FILE) as opened:
        yield opened


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[LockState]:
    """Each holder that somebody waits for."""
    states: list[LockState] = []
    monkeypatch.setattr("tilemap.nightly.lock._watch", lambda _, state: states.append(state))
    return states


# --- taken and released ------------------------------------------------------------------------


def test_the_token_grows_and_is_kept(ledger: Ledger) -> None:
    """With each holder by one; a lock that is free keeps the last one's."""
    assert [take(ledger) for _ in range(3)] == [1, 2, 3]
    state = read_lock(ledger.database)
    assert (state.token, state.holder, state.since) == (3, None, None)
    with acquire(ledger, 7.5, "a test", lambda: NOW) as lock:
        state = read_lock(ledger.database)
        assert (lock.token, lock.holder) == (state.token, state.holder) == (4, ME)
        assert (state.since, state.heard, state.lease_s) == (NOW, NOW, 7.5)


def test_a_second_one_is_told_who_and_since_when(ledger: Ledger, watched: list[LockState]) -> None:
    """Host, process, time and command in one line, exit code 75; at once, and not in its way."""
    with (
        Ledger.open(ledger.database.path) as second,
        acquire(ledger, command="tilemap nightly areas.toml", clock=lambda: NOW) as lock,
    ):
        with pytest.raises(BusyError) as caught:
            take(second)
        text = str(caught.value)
        assert f"is held by {ME.host}, process {os.getpid()} since 2026-11-26 02:15:00 UTC" in text
        assert "tilemap nightly areas.toml" in text
        assert len(text.splitlines()) == 1
        assert caught.value.exit_code == 75
        lock.verify()
        assert second.database.fence is None
    assert watched == []
    with Ledger.open(ledger.database.path) as second:
        assert take(second) == 2


def test_an_error_releases_it(ledger: Ledger) -> None:
    """Whatever ends the work, a stop by hand too."""
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), acquire(ledger, command="a test"):
            raise error
        assert read_lock(ledger.database).holder is None


def test_a_release_that_fails_is_no_error_of_its_own(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is the one to tell; a process that is gone is taken over anyway."""
    monkeypatch.setattr("tilemap.nightly.database.BUSY_S", 0.05)
    with Ledger.open(ledger.database.path) as short, Ledger.open(ledger.database.path) as other:
        context = acquire(short, command="a test")
        context.__enter__()
        with other.database.transaction():
            assert context.__exit__(None, None, None) is False
        assert read_lock(other.database).holder == ME


def test_it_beats(ledger: Ledger) -> None:
    """Again and again, by the holder's clock, so that others see that it lives."""
    times = iter(NOW + timedelta(seconds=number) for number in range(10**6))
    others = set(threading.enumerate())
    with acquire(ledger, 0.05, "a test", lambda: next(times)):
        first = read_lock(ledger.database)
        until(lambda: read_lock(ledger.database).beat >= first.beat + 3)
        last = read_lock(ledger.database)
        assert last.heard is not None
        assert first.heard is not None
        assert last.heard > first.heard
        assert (last.token, last.holder, last.since) == (first.token, first.holder, first.since)
    assert set(threading.enumerate()) <= others


def test_it_goes_on_beating_after_an_hour_of_trouble(ledger: Ledger) -> None:
    """A heartbeat that could not be written is not the last one."""
    with acquire(ledger, 0.05, "a test"):
        ledger.database._connection.execute(
            "CREATE TRIGGER trouble BEFORE UPDATE ON lock BEGIN SELECT RAISE(ABORT, 'x'); END"
        )
        before = read_lock(ledger.database).beat
        time.sleep(0.1)
        assert read_lock(ledger.database).beat == before
        ledger.database._connection.execute("DROP TRIGGER trouble")
        until(lambda: read_lock(ledger.database).beat > before + 1)


# --- the dead give way -------------------------------------------------------------------------


def test_the_lock_of_a_killed_process_is_taken_over_at_once(
    tmp_path: Path, ledger: Ledger, watched: list[LockState]
) -> None:
    """However fresh its heartbeat; without waiting."""
    with holder(tmp_path) as process:
        with pytest.raises(BusyError, match=f"process {process.pid} since .*a holder"):
            take(ledger, datetime.now(UTC))
        process.kill()
        process.wait()
        assert take(ledger, datetime.now(UTC)) == 2
    assert watched == []


def test_a_process_that_is_not_reaped_is_dead(tmp_path: Path, ledger: Ledger) -> None:
    """Its number is still taken, but it publishes nothing."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    until(lambda: process_start(child) is None)
    plant(ledger, replace(ME, pid=child, started=1))
    assert take(ledger) == 2
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    "dead",
    [
        replace(ME, pid=os.getpid(), started=ME.started + 1),
        replace(ME, pid=2**22 + 1),
        replace(ME, boot="before", space=FIRST_SPACE),
    ],
    ids=["its number is another's now", "no such process", "its host was started anew"],
)
def test_a_process_that_is_surely_gone(
    dead: Holder, ledger: Ledger, watched: list[LockState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is taken over at once, whatever the clocks say."""
    monkeypatch.setattr("tilemap.nightly.lock._space", lambda: dead.space)
    for heard in (NOW, NOW + timedelta(days=999), NOW - timedelta(days=999)):
        plant(ledger, dead, heard)
        token = read_lock(ledger.database).token
        assert take(ledger) == token + 1
    assert watched == []


# --- the living do not, and nobody else is judged by a clock alone -----------------------------


@pytest.mark.parametrize(
    "other",
    [
        ELSEWHERE,
        replace(ME, boot="another", space="pid:[4026532999]"),
        replace(ME, pid=2**22 + 1, space="pid:[4026532999]"),
    ],
    ids=["another host", "a container of the same name", "a container beside"],
)
def test_who_cannot_be_seen_is_heard(
    other: Holder, ledger: Ledger, watched: list[LockState]
) -> None:
    """Within the lease it lives; later, or in the future, it is watched: still means dead."""
    for seconds in (0, 299):
        plant(ledger, other, NOW - timedelta(seconds=seconds))
        with pytest.raises(BusyError, match=other.host):
            take(ledger)
    assert watched == []
    for seconds in (301, -1, -(10**9)):
        plant(ledger, other, NOW - timedelta(seconds=seconds))
        token = read_lock(ledger.database).token
        assert take(ledger) == token + 1
        assert len(watched) == 1
        watched.clear()


@pytest.mark.parametrize("seconds", [-(10**8), 10**8], ids=["back", "forward"])
def test_a_holder_that_still_beats_is_alive_wherever_clocks_stand(
    seconds: int, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps by years takes the lock from nobody."""

    def beat(_: object, state: LockState) -> None:
        ledger.database.write("UPDATE lock SET beat = beat + 1")

    monkeypatch.setattr("tilemap.nightly.lock._watch", beat)
    for other in (ELSEWHERE, ME):
        plant(ledger, other, NOW)
        with pytest.raises(BusyError, match="is held by"):
            take(ledger, NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "garbage",
    ["", "x", "[", "[]", "null", "{}", '{"host": 1}', "[" * 100_000, "9" * 5000, "2020-13-45",
     "2020-01-01", 4 * 10**18, -1, 1.5, b"\xff"],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("column", ["token", "holder", "since", "lease_s", "beat", "heard"])
def test_a_damaged_row_is_no_dead_end(
    column: str, garbage: object, ledger: Ledger, watched: list[LockState]
) -> None:
    """A holder that cannot be read, or heard, is watched; if nothing moves it is taken over."""
    plant(ledger, ELSEWHERE, NOW - timedelta(days=1))
    ledger.database.write(f"UPDATE lock SET {column} = ?", garbage)
    take(ledger)
    assert [state.holder is not None for state in watched] == [True]
    with acquire(ledger) as lock:
        assert read_lock(ledger.database).holder == lock.holder
        lock.verify()


def test_a_holder_that_cannot_be_read_but_beats_is_alive(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows who it is, and nobody takes the lock from it."""

    def beat(_: object, state: LockState) -> None:
        ledger.database.write("UPDATE lock SET beat = beat + 1")

    monkeypatch.setattr("tilemap.nightly.lock._watch", beat)
    plant(ledger, ELSEWHERE, NOW - timedelta(days=1))
    ledger.database.write("UPDATE lock SET holder = '{'")
    with pytest.raises(BusyError, match="its row is damaged"):
        take(ledger)


def test_a_ledger_without_a_lock_is_damaged(ledger: Ledger) -> None:
    """Its row is gone."""
    ledger.database.write("DELETE FROM lock")
    with pytest.raises(StoreError, match=r"damaged.*rebuild"):
        take(ledger)


def test_a_holder_that_leaves_while_it_is_watched(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makes room."""
    monkeypatch.setattr(
        "tilemap.nightly.lock._watch",
        lambda *_: ledger.database.write("UPDATE lock SET holder = NULL"),
    )
    plant(ledger, ELSEWHERE, NOW - timedelta(days=1))
    assert take(ledger) == 2


def test_real_processes_whose_clocks_disagree(tmp_path: Path, ledger: Ledger) -> None:
    """One that beats is watched and left alone, by a clock of next year and by one of last."""
    with holder(tmp_path, lease_s=0.5):
        for days in (-365, 365):
            with pytest.raises(BusyError, match="a holder"):
                take(ledger, datetime.now(UTC) + timedelta(days=days))


@given(
    age_s=st.floats(-1e9, 1e9),
    lease_s=st.floats(0, 1e6),
    other=st.builds(
        Holder,
        host=st.sampled_from([ME.host, "another-host"]),
        pid=st.sampled_from([os.getpid(), 2**22 + 1]),
        started=st.sampled_from([ME.started, ME.started + 1, 0]),
        boot=st.sampled_from([ME.boot, "another-boot", ""]),
        who=st.just("somebody"),
        space=st.sampled_from([ME.space, FIRST_SPACE, "pid:[1]", ""]),
    ),
)
def test_no_clock_says_dead(age_s: float, lease_s: float, other: Holder) -> None:
    """Dead is said of processes of this machine only, and the same at any time."""
    state = LockState(1, other, NOW, lease_s, 1, NOW)
    verdict = judge(state, ME, NOW + timedelta(seconds=age_s))
    assert (verdict == "dead") is (judge(state, ME, NOW) == "dead")
    if verdict == "dead":
        assert (other.host, other.space) == (ME.host, ME.space)
        assert other.boot != ME.boot or (other.pid, other.started) != (ME.pid, ME.started)
    if (other.pid, other.started, other.boot) == (ME.pid, ME.started, ME.boot):
        assert verdict != "dead"
    if verdict == "alive":
        assert -1e-6 <= age_s <= lease_s + 1e-6  # a time has microseconds


def test_the_start_of_a_process_whose_name_has_parentheses(tmp_path: Path) -> None:
    """The name stands in the middle of the line and may be anything."""
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "60"]) as process:
        start = process_start(process.pid)
        process.kill()
    assert start is not None
    assert start >= ME.started > 0
    assert process_start(process.pid) is None


# --- races -------------------------------------------------------------------------------------


def test_of_two_that_race_one_wins(tmp_path: Path) -> None:
    """Many rounds; in every second one both find a dead holder first."""
    path = tmp_path / LEDGER_FILE
    rounds, winners = 60, []
    dead = replace(ME, pid=2**22 + 1)
    with (
        Ledger.open(path) as ledger,
        _racer(path) as one,
        _racer(path) as two,
    ):
        for number in range(rounds):
            if number % 2:
                plant(ledger, dead)
            before = read_lock(ledger.database).token
            for racer in (one, two):
                tell(racer, "take")
            answers = [heard_from(racer) for racer in (one, two)]
            assert sorted(answers) == ["busy", f"won {before + 1}"], number
            winners.append(answers.index(f"won {before + 1}"))
            for racer in (one, two):
                tell(racer, "leave")
            assert [heard_from(racer) for racer in (one, two)] == ["left", "left"]
            assert read_lock(ledger.database).holder is None
        for racer in (one, two):
            assert racer.stdin is not None
            racer.stdin.close()
    assert {*winners} <= {0, 1}
    assert len(winners) == rounds


_RACER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from tilemap.errors import BusyError, StoreError
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import acquire
with Ledger.open(Path(sys.argv[1])) as ledger:
    while sys.stdin.readline():
        with ExitStack() as stack:
            try:
                print("won", stack.enter_context(acquire(ledger)).token, flush=True)
            except BusyError:
                print("busy", flush=True)
            sys.stdin.readline()
        print("left", flush=True)
"""


@contextmanager
def _racer(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _RACER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
