"""A driver that is killed while it writes: run by test_ledger.py and test_lock.py.

killed_ledger.py points BASE OUT        at each statement in turn, on a copy of BASE
killed_ledger.py loop ROOT              publishes until somebody kills it
killed_ledger.py hold ROOT LEASE_S      holds the lock; obeys lines: publish, leave;
                                            pause: publish, and wait for a line in the middle
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path

from tilemap.errors import TilemapError
from tilemap.nightly.facts import Found, Product, Quarantine
from tilemap.nightly.ledger import LEDGER_FILE, Ledger
from tilemap.nightly.lock import Lock, acquire

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)


def say(*words: object) -> None:
    """A line for whoever runs this."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def product(number: int) -> Product:
    """One version of a map."""
    return Product(
        area="a", kind="map", id="x", version=f"v{number}", digest=f"d{number}", result="r",
        day=date(2020, 1, 1), status="ok", folder=f"a/x/v{number}", run="work/a/x",
        item={"id": "x"}, published=NOW,
    )  # fmt: skip


def quarantine(key: str) -> Quarantine:
    """What set a scene aside."""
    return Quarantine("a", "map", key, "d", NOW, "is no raster", 65)


def publish(ledger: Ledger, lock: Lock, number: int) -> None:
    """A product and the attempt that made it, in one transaction."""
    with ledger.publishing(lock) as publication:
        attempt = ledger.start("p", "a", "map", "x", f"d{number}", NOW)
        publication.add(product(number))
        ledger.finish(attempt, "ok", NOW, seconds=1.0, steps={"tile": 0.25, "segment": 0.75})


def prepare(ledger: Ledger, lock: Lock) -> None:
    """What is there before the first of the steps."""
    ledger.begin_pass("p", lock.holder, NOW)
    publish(ledger, lock, 1)
    ledger.quarantine(quarantine("x"))


def steps(ledger: Ledger, lock: Lock) -> Iterator[Callable[[], object]]:
    """Calls that are a transaction each."""
    sizes = ({"name": "x.tif", "size": 3},)
    yield lambda: ledger.see(Found("a", "x", None, ("x.tif",), sizes), NOW)
    yield lambda: ledger.start("p", "a", "map", "x", "d2", NOW)
    yield lambda: ledger.finish(2, "failed", NOW, "e", 65, 1.0, 0, {"tile": 1.0, "read": 2.0})
    yield lambda: ledger.quarantine(quarantine("y"))
    yield lambda: ledger.release("a", "map", "x")
    yield lambda: publish(ledger, lock, 2)
    yield lambda: ledger.gone("a", (), NOW)


def _die_at(ledger: Ledger, number: int) -> None:
    """Kill this process in front of one of the statements to come."""
    numbers = count()

    def trace(_: str) -> None:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger.database._connection.set_trace_callback(trace)


def points(base: Path, out: Path) -> None:
    """Copies ``0``, ``1``, ... of a base, each killed one statement later; then one that ends."""
    for number in count():
        root = out / str(number)
        shutil.copytree(base, root)
        child = os.fork()
        if child == 0:
            with Ledger.open(root / LEDGER_FILE) as ledger, acquire(ledger) as lock:
                _die_at(ledger, number)
                for step in steps(ledger, lock):
                    step()
                os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def loop(root: Path) -> None:
    """Publish one version after another, and say so."""
    with Ledger.open(root / LEDGER_FILE) as ledger, acquire(ledger) as lock:
        ledger.begin_pass("p", lock.holder, NOW)
        for number in count(1):
            say("begin", number)
            publish(ledger, lock, number)
            say("done", number)


def hold(root: Path, lease_s: float) -> None:
    """Hold the lock and do what is asked."""
    with Ledger.open(root / LEDGER_FILE) as ledger, acquire(ledger, lease_s, "a holder") as lock:
        ledger.begin_pass(f"p{lock.token}", lock.holder, NOW)
        say("held", lock.token)
        for line in sys.stdin:
            if line.strip() == "leave":
                return
            with ledger.publishing(lock) as publication:
                say("publishing")
                if line.strip() == "pause":
                    sys.stdin.readline()
                publication.add(product(lock.token))
            say("published")


if __name__ == "__main__":
    try:
        if sys.argv[1] == "points":
            points(Path(sys.argv[2]), Path(sys.argv[3]))
        elif sys.argv[1] == "loop":
            loop(Path(sys.argv[2]))
        else:
            hold(Path(sys.argv[2]), float(sys.argv[3]))
    except TilemapError as error:
        sys.stderr.write(f"{type(error).__name__} {error}\n")
        sys.exit(error.exit_code)
