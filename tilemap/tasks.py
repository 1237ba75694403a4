"""The driver's own window of tasks in flight: order, retries, quarantine.

Dask gets a few tasks for each worker thread at a time, so neither the scheduler nor the client
grows with the scene. A core is stitched as soon as the tiles around it are segmented.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from tilemap.cluster import thread_count
from tilemap.errors import DamagedError, StoreError, TilemapError, UnavailableError
from tilemap.geometry import Tile, TileGrid
from tilemap.worker import Receipt, Stage, run_task

IN_FLIGHT_PER_THREAD = 2
RETRIES = 2
GIVE_UP_AFTER = 3
"""Quarantined tiles after which a run without one good tile stops."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A tile that failed every time."""

    tile: Tile
    stage: Stage
    error: str


@dataclass
class Outcome:
    """What became of the tasks of a run."""

    receipts: int = 0
    retried: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.receipts += 1
        for step, seconds in receipt.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        peak = self.peak_bytes.get(receipt.process, 0)
        self.peak_bytes[receipt.process] = max(peak, receipt.peak_bytes)


class TaskWindow:
    """Runs the stages of all tiles with a bounded number in flight.

    Args:
        run: its name in the workers, ``RunSpec.name``.
        segmented: tiles that need no segmenting any more.
        stitched: tiles that need no stitching any more.
        order: tiles in the order in which they are segmented; default row by row.
        progress: called with each receipt.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        grid: TileGrid,
        segmented: set[Tile],
        stitched: set[Tile],
        progress: Callable[[Receipt], None],
        order: Iterable[Tile] | None = None,
    ) -> None:
        self.outcome = Outcome()
        self._client, self._run, self._grid, self._progress = client, run, grid, progress
        order = list(order) if order is not None else list(grid.tiles())
        self._segment = deque(tile for tile in order if tile not in segmented)
        self._settled = set(segmented)
        """Tiles with a prediction, or quarantined."""
        self._unstitched = {tile for tile in order if tile not in stitched}
        self._stitch = deque(tile for tile in order if self._ready(tile))
        self._unstitched -= set(self._stitch)
        self._attempts: dict[tuple[Stage, Tile], int] = {}
        self._something_works = bool(segmented)
        self._suspects: deque[tuple[Stage, Tile]] = deque()
        """Tasks whose worker died; each is tried again alone, to know which of them killed it."""
        self._alone: set[tuple[Stage, Tile]] = set()
        self._running: dict[Future[Any], tuple[Stage, Tile]] = {}
        self._name = f"{run}-{uuid4().hex[:8]}"
        """Ends the keys: a scheduler may still know the tasks of an earlier try of this run."""

    def _ready(self, tile: Tile) -> bool:
        around = self._grid.neighbours(tile)
        return tile in self._unstitched and all(n in self._settled for n in around)

    @property
    def _missing(self) -> set[Tile]:
        return {q.tile for q in self.outcome.quarantined if q.stage == "segment"}

    def run(self) -> Outcome:
        """Run everything.

        Raises:
            UnavailableError: if the connection to the scheduler is lost.
            TilemapError: if the disk is full, or nothing at all succeeds.
        """
        completed = as_completed(raise_errors=False)
        self._fill(completed)
        try:
            for future in completed:
                stage, tile = self._running.pop(future)
                if future.status == "lost":  # its worker died with the receipt; the tile is done
                    self._queue(stage).appendleft(tile)
                    self._fill(completed)
                    continue
                if future.status not in ("finished", "error"):
                    raise UnavailableError(
                        "the Dask scheduler must stay until the run ends, the connection to it "
                        "was lost; the same command continues"
                    )
                error = future.exception() if future.status != "finished" else None
                if error is None:
                    receipt = future.result()
                    self.outcome.add(receipt)
                    self._something_works = True
                    self._progress(receipt)
                    if stage == "segment":
                        self._settle(tile)
                else:
                    self._failed(stage, tile, error)
                self._fill(completed)
        finally:
            self._client.cancel(list(self._running))
        return self.outcome

    def _queue(self, stage: Stage) -> deque[Tile]:
        return self._segment if stage == "segment" else self._stitch

    def _fill(self, completed: as_completed) -> None:
        limit = IN_FLIGHT_PER_THREAD * thread_count(self._client)
        while len(self._running) < limit and (self._stitch or self._segment):
            stage: Stage = "stitch" if self._stitch else "segment"
            self._submit(stage, (self._stitch or self._segment).popleft(), completed)
        if self._suspects and not self._running:
            stage, tile = self._suspects.popleft()
            self._alone.add((stage, tile))
            self._submit(stage, tile, completed)

    def _submit(self, stage: Stage, tile: Tile, completed: as_completed) -> None:
        around = self._missing.intersection(self._grid.neighbours(tile))
        missing = tuple(sorted(around)) if stage == "stitch" else ()
        attempt = self._attempts[stage, tile] = self._attempts.get((stage, tile), 0) + 1
        future = self._client.submit(
            run_task,
            self._run,
            stage,
            tuple(tile),
            tuple(tuple(t) for t in missing),
            key=f"{stage}-{tile.row}-{tile.col}-{attempt}-{self._name}",
            priority=1 if stage == "stitch" else 0,
            pure=False,
        )
        self._running[future] = (stage, tile)
        completed.add(future)

    def _settle(self, tile: Tile) -> None:
        self._settled.add(tile)
        for neighbour in self._grid.neighbours(tile):
            if self._ready(neighbour):
                self._unstitched.discard(neighbour)
                self._stitch.append(neighbour)

    def _repair(self, core: Tile, damaged: Tile) -> bool:
        """Segment a damaged tile again, then stitch the core that missed it; not for ever."""
        if self._attempts.get(("segment", damaged), 0) > RETRIES:
            return False
        self.outcome.retried += 1
        self._unstitched.add(core)
        if damaged in self._settled:  # else it was found damaged by another core already
            self._settled.discard(damaged)
            self._segment.appendleft(damaged)
        elif self._ready(core):
            self._unstitched.discard(core)
            self._stitch.append(core)
        return True

    def _failed(self, stage: Stage, tile: Tile, error: BaseException) -> None:
        if isinstance(error, StoreError) and "No space" in str(error):
            raise error
        if isinstance(error, DamagedError) and self._repair(tile, Tile(*error.tile)):
            return
        killed = isinstance(error, KilledWorker)
        if killed and (stage, tile) not in self._alone:
            self._suspects.append((stage, tile))  # or another task on that worker did it
            return
        if self._attempts[stage, tile] <= RETRIES and not killed:
            self.outcome.retried += 1
            queue = self._queue(stage)
            if self._something_works:
                queue.append(tile)
            else:  # to give up soon
                queue.appendleft(tile)
            return
        text = "its worker died each time it was tried" if killed else str(error)
        self.outcome.quarantined.append(Quarantined(tile, stage, text))
        lost = len(self.outcome.quarantined)
        if not self._something_works and lost >= min(GIVE_UP_AFTER, self._grid.size):
            if isinstance(error, TilemapError):
                raise error
            raise TilemapError(f"no tile could be mapped; the first failed with: {text}") from error
        if stage == "segment":
            self._settle(tile)
