"""The driver's own window of tasks in flight: order, retries, quarantine.

Dask gets a few tasks for each worker thread at a time, so neither the scheduler nor the client
grows with the scene. A core is stitched as soon as the tiles around it are segmented. Where some
workers have GPUs, the others read tiles ahead of them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from distributed.scheduler import KilledWorker

from tilemap.cluster.flight import Flight, Landed, Task
from tilemap.errors import DamagedError, DiskFullError, InputChangedError, TilemapError
from tilemap.geometry import Tile, TileGrid
from tilemap.worker import Receipt, Stage, run_task

AHEAD_PER_SLOT = 4
"""Tiles that lie read for each one that can be segmented at a time."""
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
    """What became of the tasks of a run.

    Args:
        by_worker: tasks of each stage that each worker did, by its address.
    """

    receipts: int = 0
    retried: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    by_worker: dict[str, Counter[Stage]] = field(default_factory=dict)

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.receipts += 1
        for step, seconds in receipt.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        peak = self.peak_bytes.get(receipt.process, 0)
        self.peak_bytes[receipt.process] = max(peak, receipt.peak_bytes)
        self.by_worker.setdefault(receipt.worker, Counter())[receipt.stage] += 1


@dataclass(frozen=True)
class Work:
    """What is to be done of a run.

    Args:
        run: its name in the workers, ``RunSpec.name``.
        segmented: tiles that need no segmenting any more.
        stitched: tiles that need no stitching any more.
        order: tiles in the order in which they are segmented; default row by row.
        ahead: tiles are read by other workers than those that segment, a few ahead of them.
    """

    run: str
    grid: TileGrid
    segmented: frozenset[Tile] = frozenset()
    stitched: frozenset[Tile] = frozenset()
    order: tuple[Tile, ...] | None = None
    ahead: bool = False


class TaskWindow:
    """Runs the stages of all tiles with a bounded number in flight.

    Args:
        flight: the window; empty.
        progress: called with each receipt.
    """

    def __init__(
        self,
        flight: Flight[tuple[Stage, Tile]],
        work: Work,
        progress: Callable[[Receipt], None],
    ) -> None:
        self.outcome = Outcome()
        self._flight, self._run, self._grid = flight, work.run, work.grid
        self._progress, self._ahead = progress, work.ahead
        order = work.order if work.order is not None else tuple(work.grid.tiles())
        left = deque(tile for tile in order if tile not in work.segmented)
        self._tile, self._segment = (left, deque[Tile]()) if work.ahead else (deque[Tile](), left)
        self._reading = 0
        """Tiles that are being read ahead."""
        self._settled = set(work.segmented)
        """Tiles with a prediction, or quarantined."""
        self._unstitched = {tile for tile in order if tile not in work.stitched}
        self._stitch = deque(tile for tile in order if self._ready(tile))
        self._unstitched -= set(self._stitch)
        self._missing: set[Tile] = set()
        """Tiles that never will have a prediction."""
        self._again: Counter[tuple[Stage, Tile]] = Counter()
        """How often a task was given to Dask after the first time."""
        self._failures: Counter[tuple[Stage, Tile]] = Counter()
        self._repaired: Counter[Tile] = Counter()
        self._something_works = bool(work.segmented)
        self._suspects: deque[tuple[Stage, Tile]] = deque()
        """Tasks whose worker died; each is tried again alone, to know which of them killed it."""
        self._alone: set[tuple[Stage, Tile]] = set()
        self._name = f"{work.run}-{uuid4().hex[:8]}"
        """Ends the keys: a scheduler may still know the tasks of an earlier try of this run."""

    def _ready(self, tile: Tile) -> bool:
        around = self._grid.neighbours(tile)
        return tile in self._unstitched and all(n in self._settled for n in around)

    def run(self) -> Outcome:
        """Run everything.

        Raises:
            UnavailableError: if the connection to the scheduler is lost, or nobody is left who
                could go on.
            TilemapError: if the disk is full, or nothing at all succeeds.
        """
        self._fill()
        try:
            while len(self._flight):
                for landed in self._flight.landed():
                    self._take(landed)
                self._fill()
        finally:
            self._flight.cancel()
        return self.outcome

    def _take(self, landed: Landed[tuple[Stage, Tile]]) -> None:
        stage, tile = landed.item
        self._reading -= stage == "tile"
        if landed.lost:  # its worker died with the receipt; the tile is done
            self._again[stage, tile] += 1
            self._queue(stage).appendleft(tile)
        elif landed.error is not None:
            self._failed(stage, tile, landed.error)
        else:
            receipt: Receipt = landed.value
            self.outcome.add(receipt)
            self._something_works |= stage != "tile"
            self._progress(receipt)
            if stage == "tile":
                self._segment.append(tile)
            elif stage == "segment":
                self._settle(tile)

    def _queue(self, stage: Stage) -> deque[Tile]:
        return {"tile": self._tile, "segment": self._segment, "stitch": self._stitch}[stage]

    def _fill(self) -> None:
        while (stage := self._next()) is not None:
            self._submit(stage, self._queue(stage).popleft())
        if self._suspects and not len(self._flight):
            stage, tile = self._suspects.popleft()
            self._alone.add((stage, tile))
            self._submit(stage, tile)

    def _next(self) -> Stage | None:
        """The stage that is most in need of a task, if there is room for one."""
        if self._flight.room(segments=False) > 0:
            wanted = AHEAD_PER_SLOT * max(1, self._flight.slots(segments=True))
            if self._tile and len(self._segment) + self._reading < wanted:
                return "tile"
            if self._stitch:
                return "stitch"
        if self._segment and self._flight.room(segments=True) > 0:
            return "segment"
        return None

    def _submit(self, stage: Stage, tile: Tile) -> None:
        missing = self._missing.intersection(self._grid.neighbours(tile)) if self._missing else ()
        again = self._again[stage, tile] if self._again else 0
        self._reading += stage == "tile"
        around = tuple(tuple(t) for t in sorted(missing)) if stage == "stitch" else ()
        self._flight.submit(
            Task(
                (stage, tile),
                (run_task, self._run, stage, tuple(tile), around),
                key=f"{stage}-{tile.row}-{tile.col}-{again}-{self._name}",
                segments=stage == "segment",
            )
        )

    def _settle(self, tile: Tile) -> None:
        self._settled.add(tile)
        for neighbour in self._grid.neighbours(tile):
            if self._ready(neighbour):
                self._unstitched.discard(neighbour)
                self._stitch.append(neighbour)

    def _repair(self, core: Tile, damaged: Tile) -> bool:
        """Segment a damaged tile again, then stitch the core that missed it; not for ever."""
        if self._repaired[damaged] >= RETRIES:
            return False
        self._again["stitch", core] += 1
        self.outcome.retried += 1
        self._unstitched.add(core)
        if damaged in self._settled:  # else it was found damaged by another core already
            self._settled.discard(damaged)
            self._repaired[damaged] += 1
            self._again["segment", damaged] += 1
            self._segment.appendleft(damaged)
        elif self._ready(core):
            self._unstitched.discard(core)
            self._stitch.append(core)
        return True

    def _failed(self, stage: Stage, tile: Tile, error: BaseException) -> None:
        if isinstance(error, DiskFullError | InputChangedError):
            raise error
        if isinstance(error, DamagedError) and self._repair(tile, Tile(*error.tile)):
            return
        killed = isinstance(error, KilledWorker)
        if killed and (stage, tile) not in self._alone:
            self._again[stage, tile] += 1
            self._suspects.append((stage, tile))  # or another task on that worker did it
            return
        self._failures[stage, tile] += 1
        if self._failures[stage, tile] <= RETRIES and not killed:
            self.outcome.retried += 1
            self._again[stage, tile] += 1
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
        if stage != "stitch":
            self._missing.add(tile)
            self._settle(tile)
