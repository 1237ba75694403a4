"""Who holds a lock in the tests: rows that are planted, and real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import (
    Holder,
    acquire,
)

from .facts import NOW

SCRIPT = Path(__file__).parent / "killed_ledger.py"
ME = Holder.here("a test")
ELSEWHERE = replace(ME, host="another-host", boot="another-boot", pid=4711)


def plant(ledger: Ledger, holder: Holder, heard: datetime = NOW, lease_s: float = 300.0) -> None:
    """A lock that a holder has left as it is."""
    ledger.database.write(
        "UPDATE lock SET token = token + 1, holder = ?, since = ?, heard = ?, lease_s = ?,"
        " beat = beat + 1",
        json.dumps(asdict(holder)), NOW.isoformat(), heard.isoformat(), lease_s,
    )  # fmt: skip


def take(ledger: Ledger, now: datetime = NOW, lease_s: float = 300.0) -> int:
    """Hold it for a moment; the token."""
    with acquire(ledger, lease_s, "a test", clock=lambda: now) as lock:
        return lock.token


@contextmanager
def holder(root: Path, lease_s: float = 300.0) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is told to leave."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "hold", str(root), str(lease_s)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert heard_from(process).startswith("held")
            yield process
        finally:
            process.kill()


def heard_from(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Ask it for something."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait for what must come, whatever the machine is busy with."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
