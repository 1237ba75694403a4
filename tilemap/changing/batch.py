"""Many tasks of one kind with a bounded number in flight: retries, and what failed every time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import uuid4

from distributed.scheduler import KilledWorker

from tilemap.cluster.flight import Flight, Landed, Task
from tilemap.errors import DamagedInputError, DiskFullError, InputChangedError, TilemapError

Key = tuple[int, ...]
RETRIES = 2
GIVE_UP_AFTER = 3
"""Failed tasks after which a batch without one good task stops."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task leaves with the scheduler: less than 1 kB.

    Args:
        stage: what was done.
        key: to what: (row, col) of a tile, or (date, row, col).
        process: number of the process.
        peak_bytes: its largest resident memory so far.
        seconds: spent.
        value: a few numbers, if the stage has any to tell.
    """

    stage: str
    key: Key
    process: int
    peak_bytes: int
    seconds: float
    value: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A task that failed every time."""

    stage: str
    key: Key
    error: str


@dataclass
class Batch:
    """What became of the tasks of a run, all stages together."""

    receipts: int = 0
    retried: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    failed: list[Failed] = field(default_factory=list)

    def run(
        self,
        flight: Flight[Key],
        task: Callable[..., Receipt],
        stage: str,
        keys: Iterable[Key],
        advance: Callable[[Receipt], None],
    ) -> list[Receipt]:
        """Run ``task(stage, key)`` for every key.

        Args:
            flight: the window; empty.

        Returns:
            The receipts, in the order of their keys.

        Raises:
            UnavailableError: if the connection to the scheduler is lost, or nobody is left who
                could go on.
            TilemapError: if the disk is full, an input has changed or is damaged, or nothing at
                all succeeds.
        """
        return _Run(self, flight, task, stage, list(keys), advance).run()

    def add(self, receipt: Receipt) -> None:
        """Count one receipt."""
        self.receipts += 1
        self.seconds[receipt.stage] = self.seconds.get(receipt.stage, 0.0) + receipt.seconds
        self.peak_bytes = max(self.peak_bytes, receipt.peak_bytes)


class _Run:
    def __init__(
        self,
        batch: Batch,
        flight: Flight[Key],
        task: Callable[..., Receipt],
        stage: str,
        keys: list[Key],
        advance: Callable[[Receipt], None],
    ) -> None:
        self._batch, self._flight, self._task = batch, flight, task
        self._stage, self._keys, self._advance = stage, keys, advance
        self._waiting = deque(keys)
        self._attempts: Counter[Key] = Counter()
        self._failures: Counter[Key] = Counter()
        self._suspects: deque[Key] = deque()
        self._alone: set[Key] = set()
        self._done: dict[Key, Receipt] = {}
        self._name = uuid4().hex[:12]

    def run(self) -> list[Receipt]:
        self._fill()
        try:
            while len(self._flight):
                for landed in self._flight.landed():
                    self._take(landed)
                self._fill()
        finally:
            self._flight.cancel()
        return [self._done[key] for key in self._keys if key in self._done]

    def _take(self, landed: Landed[Key]) -> None:
        if landed.lost:  # its worker died with the receipt
            self._waiting.appendleft(landed.item)
        elif landed.error is not None:
            self._failed(landed.item, landed.error)
        else:
            receipt: Receipt = landed.value
            self._done[landed.item] = receipt
            self._batch.add(receipt)
            self._advance(receipt)

    def _fill(self) -> None:
        while self._waiting and self._flight.room(segments=False) > 0:
            self._submit(self._waiting.popleft())
        if self._suspects and not len(self._flight):
            key = self._suspects.popleft()
            self._alone.add(key)
            self._submit(key)

    def _submit(self, key: Key) -> None:
        self._attempts[key] += 1
        name = "-".join(map(str, (self._stage, *key, self._attempts[key], self._name)))
        self._flight.submit(Task(key, (self._task, self._stage, key), name))

    def _failed(self, key: Key, error: BaseException) -> None:
        if isinstance(error, DiskFullError | InputChangedError | DamagedInputError):
            raise error
        killed = isinstance(error, KilledWorker)
        if killed and key not in self._alone:
            self._suspects.append(key)  # or another task on that worker did it
            return
        self._failures[key] += 1
        if self._failures[key] <= RETRIES and not killed:
            self._batch.retried += 1
            self._waiting.append(key) if self._done else self._waiting.appendleft(key)
            return
        text = "its worker died each time it was tried" if killed else str(error)
        failed = Failed(self._stage, key, text)
        self._batch.failed.append(failed)
        lost = sum(f.stage == self._stage for f in self._batch.failed)
        if not self._done and lost >= min(GIVE_UP_AFTER, len(self._keys)):
            if isinstance(error, TilemapError):
                raise error
            raise TilemapError(f"nothing could be done; the first failed with: {text}") from error
