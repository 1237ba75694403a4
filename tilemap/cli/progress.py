"""Progress for a person: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

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

from tilemap.cli.flags import with_flags

LINE_EVERY_S = 10.0


class ConsoleBar:
    """Notes on standard error; on a terminal a bar besides.

    Args:
        unit: what is counted.
        told: template of what stands behind the count, from the fields of ``move_bar``.
    """

    def __init__(self, unit: str, told: str, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._unit, self._told = unit, told
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started = self._printed = 0.0

    def note(self, text: str) -> None:
        """A line for the person who waits."""
        self.console.print(with_flags(text), markup=False)

    def begin_bar(self, total: int, done: int, **fields: Any) -> None:
        """Start the clock, and on a terminal show the bar."""
        self._started = self._printed = time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TextColumn(self._told),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total, completed=done, **fields)

    def move_bar(self, done: int, **fields: Any) -> bool:
        """Move the bar; without one, whether it is time for a line."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, **fields)
            return False
        now = time.monotonic()
        due = now - self._printed >= LINE_EVERY_S
        if due:
            self._printed = now
        return due

    @property
    def elapsed(self) -> float:
        """Seconds since the bar was begun; above 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ConsoleProgress(ConsoleBar):
    """Prints to standard error what a run tells."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__("tasks", "{task.fields[rate]} Mpx/s", console)
        self._total = self._done = self._mapped = 0

    def begin(self, total: int, done: int, pixels: int) -> None:
        """Show the bar."""
        self._total, self._done, self._mapped = total, done, 0
        if done:
            self.note(f"continuing: {done} of {total} tasks were done before")
        self.begin_bar(total, done, rate="0.00")

    def advance(self, receipt: object, pixels: int) -> None:
        """Move the bar by one task."""
        self._done += 1
        self._mapped += pixels
        rate = self._mapped / self.elapsed / 1e6
        if self.move_bar(self._done, rate=f"{rate:.2f}"):
            left = self.elapsed * (self._total - self._done) / self._done
            self.note(f"{self._done} of {self._total} tasks, {rate:.2f} Mpx/s, {left:.0f} s left")


class ConsoleTraining(ConsoleBar):
    """Prints to standard error what a training tells."""

    def __init__(self, console: Console | None = None) -> None:
        told = "loss {task.fields[loss]}, {task.fields[rate]} steps/s"
        super().__init__("steps", told, console)
        self._total = self._begun_with = 0

    def begin(self, total: int, done: int) -> None:
        """Show the bar."""
        self._total, self._begun_with = total, done
        if done:
            self.note(f"continuing after step {done} of {total}")
        self.begin_bar(total, done, loss="-", rate="-")

    def step(self, step: int, loss: float) -> None:
        """Move the bar, or print a line now and then."""
        rate = (step - self._begun_with) / self.elapsed
        if self.move_bar(step, loss=f"{loss:.4f}", rate=f"{rate:.2f}"):
            left = (self._total - step) / rate
            self.note(
                f"step {step} of {self._total}, loss {loss:.4f}, {rate:.2f} steps/s, "
                f"{left:.0f} s left"
            )
