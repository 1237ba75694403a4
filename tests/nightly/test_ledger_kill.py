"""The ledger after a kill or a power cut at any point: as before, or as after."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tilemap.nightly.database import side_files
from tilemap.nightly.ledger import (
    LEDGER_FILE,
    Ledger,
)
from tilemap.nightly.lock import acquire

from .facts import NOW

HERE = Path(__file__).parent


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
