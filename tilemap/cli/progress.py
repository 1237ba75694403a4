"""Progress for a person: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from tilemap.worker import Receipt

LINE_EVERY_S = 10.0


class ConsoleProgress:
    """Prints to standard error what a run tells."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total = self._done = self._pixels = self._mapped = 0
        self._started = self._printed = 0.0

    def note(self, text: str) -> None:
        """A line for the person who waits."""
        self.console.print(text, markup=False)

    def begin(self, total: int, done: int, pixels: int) -> None:
        """Show the bar."""
        self._total, self._done, self._pixels, self._mapped = total, done, pixels, 0
        self._started = self._printed = time.monotonic()
        if done:
            self.note(f"continuing: {done} of {total} tasks were done before")
        if self.console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("tasks"),
                TextColumn("{task.fields[rate]} Mpx/s"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("map", total=total, completed=done, rate="0.00")

    def advance(self, receipt: Receipt, pixels: int) -> None:
        """Move the bar by one task."""
        self._done += 1
        self._mapped += pixels
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        rate = self._mapped / elapsed / 1e6
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:.2f}")
        elif now - self._printed >= LINE_EVERY_S:
            self._printed = now
            left = elapsed * (self._total - self._done) / self._done
            self.note(f"{self._done} of {self._total} tasks, {rate:.2f} Mpx/s, {left:.0f} s left")

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
