"""Tasks in flight: every key once, retries, what fails every time, what ends a run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from tilemap.changing.batch import Batch, Key, Receipt
from tilemap.cluster.census import Route
from tilemap.cluster.flight import Flight
from tilemap.errors import DiskFullError, StoreError, TilemapError


@pytest.fixture(scope="module")
def flight() -> Iterator[Flight[Key]]:
    """Threads of this process: what is tested is the order of things."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Flight(client, Route(), wait_s=60)


class Flaky:
    """A task that fails for some keys, a given number of times each."""

    def __init__(self, folder: Path, fails: dict[Key, int], error: OSError | None = None) -> None:
        self.folder, self.fails, self.error = folder, fails, error or StoreError("no luck")

    def __call__(self, stage: str, key: Key) -> Receipt:
        """Count the tries of a key in a file."""
        counter = self.folder / "-".join(map(str, key))
        tries = int(counter.read_text()) if counter.exists() else 0
        counter.write_text(str(tries + 1))
        if tries < self.fails.get(key, 0):
            raise self.error
        return Receipt(stage, key, os.getpid(), 5, 0.5, (float(sum(key)),))


KEYS: list[Key] = [(date, row, 3) for date in range(3) for row in range(4)]


def test_every_key_once_in_order(flight: Flight[Key], tmp_path: Path) -> None:
    """Receipts come back in the order of their keys, whatever order they ended in."""
    batch, seen = Batch(), []
    receipts = batch.run(flight, Flaky(tmp_path, {}), "gather", KEYS, seen.append)
    assert [r.key for r in receipts] == KEYS
    assert [r.value for r in receipts] == [(float(sum(key)),) for key in KEYS]
    assert len(seen) == batch.receipts == 12
    assert batch.seconds == {"gather": 6.0}
    assert all((tmp_path / "-".join(map(str, key))).read_text() == "1" for key in KEYS)


def test_a_task_is_tried_three_times(flight: Flight[Key], tmp_path: Path) -> None:
    """One that fails twice is done; one that always fails is put aside, and the rest is done."""
    batch = Batch()
    task = Flaky(tmp_path, {KEYS[2]: 2, KEYS[5]: 99})
    receipts = batch.run(flight, task, "change", KEYS, lambda _: None)
    assert [r.key for r in receipts] == [key for key in KEYS if key != KEYS[5]]
    assert [(f.stage, f.key, f.error) for f in batch.failed] == [("change", KEYS[5], "no luck")]
    assert batch.retried == 4
    assert (tmp_path / "1-1-3").read_text() == "3"


def test_nothing_works(flight: Flight[Key], tmp_path: Path) -> None:
    """A run in which nothing succeeds ends soon, with the error of a task."""
    task = Flaky(tmp_path, dict.fromkeys(KEYS, 99))
    with pytest.raises(TilemapError, match="no luck"):
        Batch().run(flight, task, "change", KEYS, lambda _: None)
    assert len(list(tmp_path.iterdir())) < len(KEYS)


@pytest.mark.parametrize(
    "error",
    [
        DiskFullError("cannot write a.tif: no room"),
        OSError(errno.ENOSPC, "no room"),
        OSError(errno.EDQUOT, "no room"),
    ],
)
def test_a_full_disk_ends_it_at_once(flight: Flight[Key], tmp_path: Path, error: OSError) -> None:
    """No use in trying on, whichever layer was the first to see it and in whatever words."""
    task = Flaky(tmp_path, {KEYS[0]: 99}, error)
    with pytest.raises(DiskFullError, match="no room"):
        Batch().run(flight, task, "change", KEYS, lambda _: None)
    assert (tmp_path / "0-0-3").read_text() == "1"


def test_the_words_of_an_error_decide_nothing(flight: Flight[Key], tmp_path: Path) -> None:
    """A tile whose error speaks of space is one that failed; the rest is done."""
    task = Flaky(tmp_path, {KEYS[0]: 99}, StoreError("No space left between two words"))
    batch = Batch()
    assert len(batch.run(flight, task, "change", KEYS, lambda _: None)) == len(KEYS) - 1
    assert [failed.key for failed in batch.failed] == [KEYS[0]]
