"""The window of tasks in flight: order, retries, quarantine, giving up."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilemap import tasks as tasks_module
from tilemap.cluster import ClusterSettings, connect
from tilemap.cluster.census import Route
from tilemap.cluster.flight import IN_FLIGHT_PER_SLOT, Flight
from tilemap.errors import (
    DamagedError,
    DiskFullError,
    ModelError,
    StoreError,
    TilemapError,
    UnavailableError,
)
from tilemap.geometry import Tile, TileGrid
from tilemap.tasks import RETRIES, Outcome, TaskWindow, Work
from tilemap.testing import grids
from tilemap.worker import Receipt, Stage

GRID = TileGrid((40, 50), core=10, halo=2, blend=2)
"""4 x 5 tiles."""
THREADS = 2


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers in this process, so that tasks may note what they did."""
    with (
        LocalCluster(
            n_workers=THREADS,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


Behaviour = Callable[[Stage, Tile, int], None]
"""What a task does: stage, tile, how often it was tried before; may raise."""


class Log:
    """Stands in for ``run_task`` and notes what came."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self._behaviour, self._lock = behaviour, threading.Lock()
        self.tried: Counter[tuple[Stage, Tile]] = Counter()
        self.done: list[tuple[Stage, Tile]] = []
        self.missing: dict[Tile, set[Tile]] = {}

    def run(
        self,
        digest: str,
        stage: Stage,
        tile: tuple[int, int],
        missing: tuple[tuple[int, int], ...] = (),
    ) -> Receipt:
        """One task."""
        where = Tile(*tile)
        with self._lock:
            before = self.tried[stage, where]
            self.tried[stage, where] += 1
        if self._behaviour is not None:
            self._behaviour(stage, where, before)
        with self._lock:
            self.done.append((stage, where))
            if stage == "stitch":
                self.missing[where] = {Tile(*t) for t in missing}
        return Receipt(stage, where, 1, 1, {stage: 0.5})


def _flight(client: Client) -> Flight[Any]:
    return Flight(client, Route(), wait_s=60)


_playing: list[Log] = []


def _task(*arguments: Any) -> Receipt:
    """Found by name by the workers of this process: Dask copies what it is given."""
    return _playing[-1].run(*arguments)


def _play(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    _playing[:] = [log]
    monkeypatch.setattr(tasks_module, "run_task", _task)


def _run(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    grid: TileGrid = GRID,
    before: tuple[set[Tile], set[Tile]] = (set(), set()),
    **options: Any,
) -> Outcome:
    _play(monkeypatch, log)
    receipts: list[Receipt] = []
    work = Work("d" * 64, grid, *map(frozenset, before), **options)
    outcome = TaskWindow(_flight(client), work, receipts.append).run()
    assert len(receipts) == outcome.receipts == len(log.done)
    return outcome


def _ahead(log: Log, grid: TileGrid) -> None:
    """No core was stitched before the tiles around it were segmented."""
    position = {task: index for index, task in enumerate(log.done)}
    for stage, tile in log.done:
        if stage == "stitch":
            for neighbour in grid.neighbours(tile):
                assert position["segment", neighbour] < position["stitch", tile]


@settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(grids(longest=40).filter(lambda grid: grid.size <= 25), st.randoms(use_true_random=False))
def test_every_tile_goes_through_both_stages_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, grid: TileGrid, random: Any
) -> None:
    """In any order of tiles; a core is stitched only when all around it is segmented."""
    order = list(grid.tiles())
    random.shuffle(order)
    log = Log()
    outcome = _run(client, monkeypatch, log, grid, order=tuple(order))
    assert sorted(log.done) == sorted((s, t) for s in ("segment", "stitch") for t in order)
    _ahead(log, grid)
    assert outcome.quarantined == []
    assert outcome.retried == 0
    assert outcome.seconds == dict.fromkeys(("segment", "stitch"), 0.5 * grid.size)


def test_never_more_than_the_window_is_in_flight(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few tasks for each thread are with Dask, however many tiles there are."""
    flying: set[str] = set()
    most = 0
    submit = client.map

    def counted(function: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal most
        futures = submit(function, *arguments, **options)
        flying.update(future.key for future in futures)
        most = max(most, len(flying))
        return futures

    monkeypatch.setattr(client, "map", counted)
    grid = TileGrid((100, 60), core=10, halo=2, blend=2)
    tiles = dict.fromkeys(grid.tiles())

    def progress(receipt: Receipt) -> None:
        prefix = f"{receipt.stage}-{receipt.tile.row}-{receipt.tile.col}-"
        flying.remove(next(key for key in flying if key.startswith(prefix)))
        tiles.pop(receipt.tile, None)

    log = Log(lambda *_: time.sleep(0.002))
    _play(monkeypatch, log)
    TaskWindow(_flight(client), Work("d" * 64, grid), progress).run()
    assert not tiles
    assert most == IN_FLIGHT_PER_SLOT * THREADS


def test_what_was_done_before_is_not_done_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only missing tiles are segmented, only missing cores stitched."""
    segmented = {t for t in GRID.tiles() if t != Tile(3, 4)}
    stitched = {t for t in GRID.tiles() if max(t) < 2}
    log = Log()
    _run(client, monkeypatch, log, before=(segmented, stitched))
    assert [t for s, t in log.done if s == "segment"] == [Tile(3, 4)]
    assert {t for s, t in log.done if s == "stitch"} == set(GRID.tiles()) - stitched


def test_nothing_to_do_ends_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that only lacks its products."""
    every = set(GRID.tiles())
    assert _run(client, monkeypatch, Log(), before=(every, every)).receipts == 0


@pytest.mark.parametrize("stage", ["segment", "stitch"])
def test_a_tile_that_fails_twice_is_fine_the_third_time(
    client: Client, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """Whatever the error was; nobody else notices."""

    def fail(now: Stage, tile: Tile, before: int) -> None:
        if (now, tile) == (stage, Tile(1, 2)) and before < RETRIES:
            raise ValueError(before)

    log = Log(fail)
    outcome = _run(client, monkeypatch, log)
    assert outcome.quarantined == []
    assert outcome.retried == RETRIES
    assert log.tried.pop((stage, Tile(1, 2))) == RETRIES + 1
    assert set(log.tried.values()) == {1}
    assert not any(log.missing.values())
    _ahead(log, GRID)


def test_a_tile_that_always_fails_is_quarantined(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named with its error; it and its neighbours are stitched without it."""
    lost = Tile(1, 2)

    def fail(stage: Stage, tile: Tile, before: int) -> None:
        if (stage, tile) == ("segment", lost):
            raise ModelError(f"number {before}")

    log = Log(fail)
    outcome = _run(client, monkeypatch, log)
    (found,) = outcome.quarantined
    assert (found.tile, found.stage, found.error) == (lost, "segment", f"number {RETRIES}")
    assert log.tried["segment", lost] == RETRIES + 1
    assert set(log.missing) == set(GRID.tiles())
    for tile, missing in log.missing.items():
        assert missing == ({lost} if lost in GRID.neighbours(tile) else set())


def test_a_core_that_cannot_be_stitched_is_quarantined_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbours have all they need."""

    def fail(stage: Stage, tile: Tile, before: int) -> None:
        if (stage, tile) == ("stitch", Tile(0, 0)):
            raise StoreError("chunk is damaged")

    log = Log(fail)
    outcome = _run(client, monkeypatch, log)
    assert [(q.tile, q.stage) for q in outcome.quarantined] == [(Tile(0, 0), "stitch")]
    assert not any(log.missing.values())
    assert len(log.missing) == GRID.size - 1


def _always(kind: type[Exception], text: str) -> Behaviour:
    def fail(*_: object) -> None:
        raise kind(text)

    return fail


def test_if_nothing_works_it_stops_after_three(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tile's own error, not after trying ten thousand tiles."""
    log = Log(_always(ModelError, "classes must be finite"))
    with pytest.raises(ModelError, match="classes must be finite"):
        _run(client, monkeypatch, log, TileGrid((900, 900), core=10, halo=2, blend=2))
    assert 3 * (RETRIES + 1) <= sum(log.tried.values()) < 40


def test_if_nothing_works_foreign_errors_are_told_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is none of ours becomes one."""
    with pytest.raises(TilemapError, match=r"no tile could be mapped.*out of cheese"):
        _run(client, monkeypatch, Log(_always(RuntimeError, "out of cheese")))


def test_a_scene_of_one_tile_that_fails_is_an_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no map of nothing."""
    with pytest.raises(ModelError):
        _run(client, monkeypatch, Log(_always(ModelError, "no")), TileGrid((5, 5), 8, 2, 2))


def test_three_bad_tiles_after_many_good_ones_do_not_stop_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the good ones were done by an earlier run: it ends partial again."""
    bad = {Tile(0, 0), Tile(0, 1), Tile(0, 2)}

    def fail(stage: Stage, tile: Tile, before: int) -> None:
        if stage == "segment":
            raise ModelError("no")
        time.sleep(0.2)  # so that nothing is done before the third fails

    segmented = set(GRID.tiles()) - bad
    stitched = {t for t in segmented if not bad.intersection(GRID.neighbours(t))}
    log = Log(fail)
    outcome = _run(client, monkeypatch, log, before=(segmented, stitched))
    assert {q.tile for q in outcome.quarantined} == bad
    assert set(log.missing) == set(GRID.tiles()) - stitched


def test_a_full_disk_stops_it_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries, no quarantine: every other tile would fail as well."""

    def fail(stage: Stage, tile: Tile, before: int) -> None:
        if tile == Tile(0, 3):
            raise DiskFullError("cannot write chunk (0, 3) of label: the quota is used up")

    log = Log(fail)
    with pytest.raises(DiskFullError, match="the quota"):
        _run(client, monkeypatch, log)
    assert log.tried["segment", Tile(0, 3)] == 1
    assert len(log.done) < GRID.size


def test_a_lost_scheduler_is_said_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Futures that were cancelled under the driver mean that the cluster is gone."""
    started = threading.Event()

    def wait(*_: object) -> None:
        started.set()
        time.sleep(0.3)

    futures: list[Any] = []
    submit = client.map

    def kept(*arguments: Any, **options: Any) -> Any:
        new = submit(*arguments, **options)
        futures.extend(new)
        started.wait(10)
        threading.Timer(0.05, client.cancel, [list(futures)]).start()
        return new

    monkeypatch.setattr(client, "map", kept)
    with pytest.raises(UnavailableError, match="same command continues"):
        _run(client, monkeypatch, Log(wait))


def test_a_receipt_that_died_with_its_worker_is_asked_for_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may die between the end of a task and the driver's look at it."""
    come, seen = Flight._next, 0

    def losing(self: Flight[Any]) -> list[Any]:
        """Every fifth future has lost its data when it comes."""
        nonlocal seen
        futures = come(self)
        for future in futures:
            seen += 1
            if seen % 5 == 1:
                future._state.lose()
        return futures

    monkeypatch.setattr(Flight, "_next", losing)
    log = Log()
    _play(monkeypatch, log)
    receipts: list[Receipt] = []
    outcome = TaskWindow(_flight(client), Work("d" * 64, GRID), receipts.append).run()
    assert not outcome.quarantined
    assert outcome.receipts == 2 * GRID.size
    assert {(r.stage, r.tile) for r in receipts} == set(log.done)
    assert len(log.done) > outcome.receipts  # some were done twice


def test_a_tile_that_kills_its_worker_is_quarantined(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried once more, alone; not oftener, since each try costs several workers."""

    def fail(stage: Stage, tile: Tile, before: int) -> None:
        if (stage, tile) == ("segment", Tile(2, 2)):
            raise KilledWorker("segment-2-2", SimpleNamespace(address="tcp://there"), 1)

    log = Log(fail)
    outcome = _run(client, monkeypatch, log)
    (found,) = outcome.quarantined
    assert found.tile == Tile(2, 2)
    assert "worker died" in found.error
    assert log.tried["segment", Tile(2, 2)] == 2


def test_whoever_shares_a_worker_with_a_killer_is_not_blamed() -> None:
    """Real processes, killed by one tile each time: every other tile is mapped."""
    killer = (1, 1)

    def work(
        digest: str, stage: Stage, tile: tuple[int, int], missing: tuple[tuple[int, int], ...] = ()
    ) -> Receipt:
        if stage == "segment" and tile == killer:
            os._exit(1)
        time.sleep(0.05)
        return Receipt(stage, Tile(*tile), os.getpid(), 1, {})

    grid = TileGrid((30, 30), core=10, halo=2, blend=2)
    done: list[tuple[Stage, Tile]] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        connect(ClusterSettings(workers=1, memory_limit=1 << 30)) as client,
    ):
        patch.setattr(tasks_module, "run_task", work)
        window = TaskWindow(
            _flight(client), Work("d" * 64, grid), lambda r: done.append((r.stage, r.tile))
        )
        outcome = window.run()
    assert [q.tile for q in outcome.quarantined] == [Tile(*killer)]
    assert Counter(stage for stage, _ in done) == {"segment": 8, "stitch": 9}
    assert outcome.receipts == 17


def test_an_outcome_keeps_the_highest_peak_of_each_process() -> None:
    """Memory is by process; seconds add up."""
    outcome = Outcome()
    for process, peak in ((1, 50), (2, 20), (1, 70), (1, 60)):
        outcome.add(Receipt("segment", Tile(0, 0), process, peak, {"tile": 0.25, "segment": 1.0}))
    assert outcome.peak_bytes == {1: 70, 2: 20}
    assert outcome.seconds == {"tile": 1.0, "segment": 4.0}
    assert np.isclose(sum(outcome.seconds.values()), 5)


def test_a_damaged_tile_is_segmented_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores that find a neighbour damaged wait until it is made again; all end well."""
    damaged = Tile(1, 1)

    def behaviour(stage: Stage, tile: Tile, before: int) -> None:
        touches = damaged in GRID.neighbours(tile)
        if stage == "stitch" and touches and log.tried["segment", damaged] == 0:
            raise DamagedError("chunk is damaged", damaged)

    log = Log(behaviour)
    before = (set(GRID.tiles()), set())
    outcome = _run(client, monkeypatch, log, before=before)
    assert outcome.quarantined == []
    assert log.tried["segment", damaged] == 1
    assert {tile for stage, tile in log.done if stage == "stitch"} == set(GRID.tiles())


def test_a_tile_damaged_for_ever_is_quarantined(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that eats one tile again and again does not keep the run for ever."""
    damaged = Tile(1, 1)

    def behaviour(stage: Stage, tile: Tile, before: int) -> None:
        if stage == "stitch" and tile == damaged:
            raise DamagedError("chunk is damaged", damaged)

    outcome = _run(client, monkeypatch, Log(behaviour))
    assert [(q.tile, q.stage) for q in outcome.quarantined] == [(damaged, "stitch")]
