"""``tilemap train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
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

LINE_EVERY_S = 10.0


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml",
            help="Scenes, labels, classes and settings; see docs/training.md.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the training.")],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier training in that directory.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda [default: the configuration's].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the CPU [default: one per core].", min=1)
    ] = None,
) -> None:
    """Train a model from scenes and labels; it is in OUT/model then.

    The same command on the same directory continues a training that was interrupted, and ends with
    the same weights.
    """
    from tilemap import api
    from tilemap.training.measuring import table

    progress = ConsoleTraining()
    result = api.train(config, out, progress=progress, fresh=fresh, device=device, threads=threads)
    for line in table(result.card.metrics):
        typer.echo(line)
    typer.echo(
        f"temperature {result.card.temperature}, "
        f"{result.record['steps']} steps in {result.record['seconds']} s; wrote {result.model}"
    )


class ConsoleTraining:
    """Prints to standard error what a training tells."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total = self._begun_with = 0
        self._started = self._printed = 0.0

    def note(self, text: str) -> None:
        """A line for the person who waits."""
        self.console.print(text, markup=False)

    def begin(self, total: int, done: int) -> None:
        """Show the bar."""
        self._total, self._begun_with = total, done
        self._started = self._printed = time.monotonic()
        if done:
            self.note(f"continuing after step {done} of {total}")
        if self.console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TextColumn("loss {task.fields[loss]}, {task.fields[rate]} steps/s"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total, completed=done, loss="-", rate="-")

    def step(self, step: int, loss: float) -> None:
        """Move the bar, or print a line now and then."""
        now = time.monotonic()
        rate = (step - self._begun_with) / max(now - self._started, 1e-9)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, loss=f"{loss:.4f}", rate=f"{rate:.2f}")
        elif now - self._printed >= LINE_EVERY_S:
            self._printed = now
            left = (self._total - step) / rate
            self.note(
                f"step {step} of {self._total}, loss {loss:.4f}, {rate:.2f} steps/s, "
                f"{left:.0f} s left"
            )

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
