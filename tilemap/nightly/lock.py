"""One pass at a time: a row of the ledger that says who drives, and that its holder lives.

::

    free --acquire--> held, token + 1 --release--> free, same token
                       |   a thread beats every min(lease / 5, 30 s)
                       `--acquire by another one, if the holder is dead--> held, token + 1

A holder that was taken over (it was stopped, or its host was) cannot write any more: every
transaction of its ledger begins by comparing the token, and no other process can take over
before that transaction ends. No clock decides alone: a holder on this host is judged by its
process, another one whose heartbeat is old or lies in the future by whether it still beats.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilemap.errors import BusyError, StoreError
from tilemap.files import decode_json
from tilemap.nightly.database import REBUILD, DamagedLedgerError, Database, connect
from tilemap.nightly.rows import expect, to_moment, to_text

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger

LEASE_S = 300.0
_TOKENS, _LEASES = 2**62, 1e10
"""Above all that there can be."""
LONGEST_PERIOD_S = 30.0
WATCHED_BEATS = 3
"""Periods without a beat after which a holder that cannot be judged otherwise is dead."""
_ALL_PROCESSES = "pid:[4026531836]"
"""The kernel's first PID namespace: here a host name is a machine's, not a container's."""


_BEATING = threading.Lock()
"""Held during a heartbeat: a fork in the middle of one would leave SQLite's locks locked for ever
in the child."""
os.register_at_fork(
    before=_BEATING.acquire,
    after_in_parent=_BEATING.release,
    after_in_child=_BEATING.release,
)


class LostLockError(BusyError):
    """Another process has taken the lock over; what this one began must be left to that one."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, told from any other one that has its number.

    Args:
        host: name of its machine.
        pid: its number.
        started: clock ticks from the machine's start to its own; 0 where that is not known.
        boot: id of the machine's start; empty where that is not known.
        who: user and command, for people.
        space: the PID namespace in which the number holds; empty where that is not known.
    """

    host: str
    pid: int
    started: int
    boot: str
    who: str
    space: str = ""

    @classmethod
    def here(cls, command: str | None = None) -> Holder:
        """This process.

        Args:
            command: what to call it [default: its own command line].
        """
        command = command or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=process_start(os.getpid()) or 0,
            boot=_text(Path("/proc/sys/kernel/random/boot_id")),
            who=f"{_user()}: {command[:200]}",
            space=_space(),
        )


_NOBODY_KNOWN = Holder(host="?", pid=0, started=0, boot="", who="its row is damaged")


@dataclass(frozen=True, slots=True)
class LockState:
    """The lock's row.

    Args:
        token: of the present or the last holder.
        holder: None if it is free.
        since: when it was taken.
        lease_s: that the holder asked for.
        beat: counts the holder's heartbeats.
        heard: when the last one was, by the holder's clock.
    """

    token: int
    holder: Holder | None
    since: datetime | None
    lease_s: float
    beat: int
    heard: datetime | None

    def told(self) -> str:
        """Who holds it, in one line."""
        assert self.holder is not None
        since = "" if self.since is None else f" since {self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.holder.host}, process {self.holder.pid}{since} ({self.holder.who})"


class Lock:
    """The lock as its holder has it.

    Args:
        token: larger than that of any holder before.
        holder: who.
        database: where the row is.
    """

    def __init__(self, token: int, holder: Holder, database: Database) -> None:
        self.token = token
        self.holder = holder
        self.lost = threading.Event()
        """Set as soon as it is known that another process has taken over."""
        self._database = database

    def verify(self) -> None:
        """The lock is held, and stays so until the transaction ends in which this is called.

        Raises:
            LostLockError: it is not, or another file lies in the ledger's place.
        """
        state = read_lock(self._database)
        if state.token == self.token and state.holder is not None and self._database.in_place():
            return
        self.lost.set()
        by = f" to {state.told()}" if state.holder and state.token != self.token else ""
        raise LostLockError(
            f"the lock on {self._database.path} is lost{by}; nothing more is published"
        )


def read_lock(database: Database) -> LockState:
    """The lock's row as it is now.

    Raises:
        DamagedLedgerError: if there is none.
    """
    row = database.row("SELECT * FROM lock")
    if row is None:
        raise DamagedLedgerError(f"{database.path} is damaged, it has no lock; {REBUILD}")
    return lock_of(row)


def lock_of(row: sqlite3.Row) -> LockState:
    """A row of ``lock``.

    What is damaged in it is not known. A holder that is not known lives as long as it beats.
    """
    token, lease_s = row["token"], row["lease_s"]
    return LockState(
        token=token if isinstance(token, int) and 0 <= token < _TOKENS else 0,
        holder=_readable(_holder, row["holder"], _NOBODY_KNOWN),
        since=_readable(to_moment, row["since"], None),
        lease_s=lease_s if isinstance(lease_s, float) and 0 <= lease_s < _LEASES else LEASE_S,
        beat=row["beat"],
        heard=_readable(to_moment, row["heard"], None),
    )


def _holder(text: str | None) -> Holder | None:
    if text is None:
        return None
    value = decode_json(text)
    kinds = {f.name: int if f.name in ("pid", "started") else str for f in fields(Holder)}
    expect({"space": "", **value}, kinds)
    return Holder(**value)


def _readable(read: Callable[[Any], Any], value: object, otherwise: object) -> Any:
    try:
        return read(value)
    except (LookupError, TypeError, ValueError, OverflowError):
        return otherwise


# --- is a holder alive? ------------------------------------------------------------------------

Verdict = Literal["alive", "dead", "unknown"]


def judge(state: LockState, me: Holder, now: datetime) -> Verdict:
    """Whether the holder of a lock lives, as far as one look can tell.

    A process of this host that is gone is dead at once. Otherwise a heartbeat within the lease
    tells that it lives, and any other one (old, or in the future) tells nothing: clocks are set,
    and machines sleep.

    Args:
        state: of a lock that is held.
        me: who asks.
        now: by the clock of who asks.
    """
    holder = state.holder
    assert holder is not None
    if _gone(holder, me):
        return "dead"
    if state.heard is None:
        return "unknown"
    age = now - state.heard
    return "alive" if timedelta() <= age <= timedelta(seconds=state.lease_s) else "unknown"


def _gone(holder: Holder, me: Holder) -> bool:
    """Whether a process is surely no more; False where it cannot be seen from here."""
    if holder.host != me.host or holder.space != me.space or not me.boot or not holder.boot:
        return False
    if holder.boot != me.boot:  # of containers several may have one name
        return me.space == _ALL_PROCESSES
    started = process_start(holder.pid)
    return started is None or (holder.started != 0 and started != holder.started)


def process_start(pid: int) -> int | None:
    """Clock ticks from the machine's start to a process's; None if it does not run any more.

    Where there is no ``/proc`` it is 0 for every process that runs.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() or not _signalled(pid) else 0
    # The command stands in parentheses and may hold any character.
    values = text.rpartition(")")[2].split()
    return None if values[0] in ("Z", "X") else int(values[19])


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# --- take, beat, release -----------------------------------------------------------------------


def now_utc() -> datetime:
    """The clock on the wall."""
    return datetime.now(UTC)


@contextmanager
def acquire(
    ledger: Ledger,
    lease_s: float = LEASE_S,
    command: str | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> Iterator[Lock]:
    """Hold the lock. Until it is released the ledger writes only while it is held.

    If that cannot be told at once, the present holder is watched for ``WATCHED_BEATS`` of its
    beats (up to 90 s).

    Args:
        ledger: whose lock; only from the thread and process that called may it be left.
        lease_s: a holder that has not been heard of for so long is watched, and taken over if it
            does not beat.
        command: what to call this process [default: its command line].
        clock: UTC.

    Raises:
        BusyError: who holds it, and since when.
    """
    database, me = ledger.database, Holder.here(command)
    lock = _take(database, lease_s, me, clock)
    stop = threading.Event()
    beats = threading.Thread(
        target=_beat, args=(lock, database.path, lease_s, clock, stop), daemon=True
    )
    database.fence = lock.verify
    beats.start()
    try:
        yield lock
    finally:
        if os.getpid() == me.pid:  # a forked child has a copy, and nothing to release
            stop.set()
            beats.join()
            _release(database, lock)


def _take(database: Database, lease_s: float, me: Holder, clock: Callable[[], datetime]) -> Lock:
    watched: LockState | None = None
    while True:
        with database.transaction() as connection:
            if not database.in_place():
                raise BusyError(f"{database.path} was replaced just now; try again")
            state = read_lock(database)
            verdict = "dead" if state.holder is None else judge(state, me, clock())
            if verdict == "unknown" and watched == state:
                verdict = "dead"
            if verdict == "dead":
                now = to_text(clock())
                connection.execute(
                    "UPDATE lock SET token = ?, holder = ?, since = ?, lease_s = ?,"
                    " beat = beat + 1, heard = ?",
                    (state.token + 1, json.dumps(asdict(me)), now, lease_s, now),
                )
                return Lock(state.token + 1, me, database)
        if verdict == "alive" or watched is not None:
            raise BusyError(f"{database.path.parent} is held by {state.told()}; try again later")
        watched = state
        _watch(database, state)


def _watch(database: Database, state: LockState) -> None:
    """Wait until the holder has moved, or has had time to."""
    until = time.monotonic() + WATCHED_BEATS * _period(state.lease_s)
    while time.monotonic() < until and read_lock(database) == state:
        time.sleep(min(0.1, _period(state.lease_s)))


def _period(lease_s: float) -> float:
    return min(lease_s / 5, LONGEST_PERIOD_S)


def _beat(
    lock: Lock,
    path: Path,
    lease_s: float,
    clock: Callable[[], datetime],
    stop: threading.Event,
) -> None:
    """Tell again and again that the holder lives, by a connection of its own."""
    with _BEATING:
        connection = connect(path, "rw", min(1.0, _period(lease_s)))
        # The driver's connection tidies up the log; two that do it at once have been a bug.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    while not stop.wait(_period(lease_s)):
        with suppress(sqlite3.DatabaseError), _BEATING:  # busy, or a full disk: the next one
            told = connection.execute(
                "UPDATE lock SET beat = beat + 1, heard = ? WHERE token = ? AND holder IS NOT NULL",
                (to_text(clock()), lock.token),
            )
            if told.rowcount == 0:
                lock.lost.set()
                break
    with _BEATING:
        connection.close()


def _release(database: Database, lock: Lock) -> None:
    """Free the lock, unless it is lost; then the fence stays for good.

    What hinders it is no reason to fail: the process ends, and a dead holder is taken over.
    """
    with suppress(BusyError, StoreError), database.transaction() as connection:
        connection.execute("UPDATE lock SET holder = NULL WHERE token = ?", (lock.token,))
        connection.execute("UPDATE lock SET since = NULL, heard = NULL")
    if not lock.lost.is_set():
        database.fence = None
