"""A piece of work that was begun, and how its end is told."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from tilemap.errors import (
    EXIT_BUG,
    EXIT_OK,
    EXIT_PARTIAL,
    DiskFullError,
    OutputError,
    TilemapError,
)
from tilemap.nightly.doing import ClusterLostError, Made
from tilemap.nightly.facts import Done, Product, Status
from tilemap.nightly.lock import LostLockError
from tilemap.nightly.works import Work


@dataclass(frozen=True)
class Trial:
    """A piece of work that was begun.

    Args:
        attempt: its number in the ledger.
        work: what.
        started: when.
        clock: the same by a clock that nobody sets, seconds.
    """

    attempt: int
    work: Work
    started: datetime
    clock: float

    def done(self, status: Status, error: BaseException) -> Done:
        """It did not end well."""
        work = self.work
        code = error.exit_code if isinstance(error, TilemapError) else EXIT_BUG
        return Done(
            work.area, work.kind, work.id, work.day, status, work.why, self.started,
            time.monotonic() - self.clock, str(error) or type(error).__name__, code,
        )  # fmt: skip

    def made(self, made: Made, product: Product) -> Done:
        """It is published."""
        work, whole = self.work, made.status == "ok"
        return Done(
            work.area, work.kind, work.id, product.day, made.status, work.why, self.started,
            time.monotonic() - self.clock,
            None if whole else _missing(made), EXIT_OK if whole else EXIT_PARTIAL,
            made.pixels, made.km2, product.folder, made.steps,
        )  # fmt: skip


def _missing(made: Made) -> str:
    lost, dates = made.record["quarantined"], made.record.get("partial_dates")
    if lost:
        return f"{len(lost)} tiles failed, the first with: {lost[0]['error']}"
    return f"tiles are missing of {', '.join(dates)}" if dates else "partial"


def ends_pass(error: TilemapError) -> bool:
    """Whether no other work could be done either: no cluster, no room on the disk, no lock."""
    return isinstance(error, ClusterLostError | OutputError | DiskFullError | LostLockError)
