"""The log of a pass: JSON lines for machines, and at the same time lines for a person."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from tilemap.nightly.telling.lines import LineFile
from tilemap.nightly.telling.words import clean, jsonable, printable, stamp

if TYPE_CHECKING:
    from rich.console import Console

    from tilemap.progress import Progress

Level = Literal["debug", "info", "warning", "error"]
PROGRESS_EVERY_S = 30.0
_RESERVED = ("time", "level", "event", "pass", "text")
_LONGEST = 8000  # characters of one text in the log
_SAME_MOST, _LIBRARY_MOST = 20, 1000


class PassLog:
    """Told what happens in a pass; whatever fails in telling is said once and never raised.

    Args:
        path: of the JSON lines; None for the terminal only.
        pass_id: of the pass.
        console: for the lines of a person; None for standard error.
        bar: makes what shows one run on the console, such as
            ``tilemap.cli.progress.ConsoleProgress``; without it a line now and then.
        every_s: seconds between two events of the progress of one run.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        path: Path | None,
        pass_id: str,
        console: Console | None = None,
        bar: Callable[[Console], Progress] | None = None,
        *,
        every_s: float = PROGRESS_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or _standard_error()
        self.every_s, self.clock = every_s, clock
        self._pass = pass_id
        self._file = None if path is None else LineFile(path, self._say)
        self._bar = bar
        self._runs: list[RunProgress] = []
        self._lock = threading.RLock()
        self._libraries = _Libraries(self)

    def __enter__(self) -> Self:
        """From here on, warnings that libraries log are in the log too."""
        self._libraries.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Bars are taken away, the file is brought to the disk."""
        self._libraries.leave()
        for run in self._runs:
            run.end()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def event(
        self, name: str, level: Level = "info", text: str | None = None, **fields: Any
    ) -> None:
        """Something happened.

        Args:
            name: of the kind of event, one word.
            level: debug is not shown to the person.
            text: for the person; without it the event is in the JSON only.
            fields: for machines, such as ``area``, ``kind``, ``id``.
        """
        self.write(name, level, text, fields)
        if text is not None and level != "debug":
            prefix = f"{level}: " if level in ("warning", "error") else ""
            self._say(text if not prefix or text.startswith(level) else prefix + text)

    def write(self, name: str, level: str, text: str | None, fields: dict[str, Any]) -> None:
        """Into the JSON only."""
        moment = stamp(datetime.now(UTC), "milliseconds")
        record = {"time": moment, "level": level, "event": name, "pass": self._pass}
        try:
            told = {} if text is None else {"text": _clipped(clean(text))}
            more = {f"{k}_" if k in _RESERVED else k: jsonable(v) for k, v in fields.items()}
            record |= {key: _clipped(value) for key, value in (told | more).items()}
        except Exception as error:  # of an object that cannot even be printed
            record["unclear"] = type(error).__name__
        with self._lock:
            if self._file is not None:
                self._file.write(record)

    def progress(self, area: str, kind: str, id: str) -> RunProgress:  # noqa: A002 as in the facts
        """What one run is given to tell its progress; its notes are events."""
        bar = None if self._bar is None else self._bar(self.console)
        run = RunProgress(self, {"area": area, "kind": kind, "id": id}, bar)
        self._runs.append(run)
        return run

    def _say(self, text: str) -> None:
        self.guarded(lambda: self.console.print(printable(clean(text)), markup=False))

    def guarded(self, show: Callable[[], object]) -> None:
        """Show something; a terminal that has gone is no reason to stop."""
        try:
            show()
        except (OSError, ValueError):  # a closed file is a ValueError
            pass
        except SystemExit as left:  # how rich leaves a broken pipe
            if not isinstance(left.__context__, BrokenPipeError):
                raise


class RunProgress:
    """A ``tilemap.progress.Progress`` that tells a log, and a bar if there is one."""

    def __init__(self, log: PassLog, which: dict[str, Any], bar: Progress | None) -> None:
        self._log, self._which, self._bar = log, which, bar
        self._total = self._done = self._before = self._mapped = 0
        self._started = self._told = 0.0
        self._begun = False

    def note(self, text: str) -> None:
        """A line for the person who waits."""
        level = "warning" if text.lstrip().startswith("warning") else "info"
        bar = self._bar
        if bar is None:
            self._log.event("note", level, text, **self._which)  # type: ignore[arg-type]
        else:
            self._log.write("note", level, text, self._which)
            self._log.guarded(lambda: bar.note(printable(clean(text))))

    def begin(self, total: int, done: int, pixels: int) -> None:
        """``total`` tasks stand, ``done`` of them from before; ``pixels`` of the scene."""
        self._total, self._done, self._before, self._mapped = total, done, done, 0
        self._started = self._told = self._log.clock()
        self._begun = True
        told = {"tasks": total, "before": done, "pixels": pixels}
        self._log.write("run_begin", "info", None, self._which | told)
        if (bar := self._bar) is not None:
            self._log.guarded(lambda: bar.begin(total, done, pixels))

    def advance(self, receipt: object, pixels: int) -> None:
        """A task ended; ``pixels`` of the scene are newly mapped."""
        self._done += 1
        self._mapped += pixels
        if (bar := self._bar) is not None:
            self._log.guarded(lambda: bar.advance(receipt, pixels))
        now = self._log.clock()
        if now - self._told < self._log.every_s:
            return
        self._told = now
        left = (now - self._started) * (self._total - self._done) / (self._done - self._before)
        text = None
        if self._bar is None:
            text = f"{self._done} of {self._total} tasks, {self._rate:.2f} Mpx/s, {left:.0f} s left"
        self._log.event("progress", "info", text, **self._figures(), seconds_left=round(left, 1))

    def end(self) -> None:
        """All tasks ended; a second time it is nothing."""
        if (bar := self._bar) is not None:
            self._log.guarded(bar.end)
        if self._begun:
            self._begun = False
            self._log.event("run_end", **self._figures())

    @property
    def _rate(self) -> float:
        return self._mapped / max(self._log.clock() - self._started, 1e-9) / 1e6

    def _figures(self) -> dict[str, Any]:
        return self._which | {
            "tasks": self._total,
            "done": self._done,
            "pixels": self._mapped,
            "seconds": round(self._log.clock() - self._started, 3),
            "mpx_per_s": round(self._rate, 4),
        }


class _Libraries(logging.Handler):
    """Brings what libraries log, from warnings on, into the JSON; the same place not for ever."""

    def __init__(self, log: PassLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._seen: Counter[tuple[str, int]] = Counter()
        self._heard: list[logging.Logger] = []

    def listen(self) -> None:
        """To the root, and to loggers that keep theirs from it, as distributed does."""
        known = logging.root.manager.loggerDict.values()
        apart = [one for one in known if isinstance(one, logging.Logger) and not one.propagate]
        self._heard = [logging.root, *apart]
        for logger in self._heard:
            logger.addHandler(self)

    def leave(self) -> None:
        """Hear no more; tell how often one was not listened to."""
        for logger in self._heard:
            logger.removeHandler(self)
        over = sum(count - _SAME_MOST for count in self._seen.values() if count > _SAME_MOST)
        if over:
            self._log.event("library_repeats", left_out=over)

    def emit(self, record: logging.LogRecord) -> None:
        """One line, unless its place in the code has been heard too often."""
        if getattr(record, "tilemap_heard", None) is self:  # by a logger further down
            return
        record.tilemap_heard = self
        place = (record.pathname, record.lineno)
        if place not in self._seen and len(self._seen) >= _LIBRARY_MOST:
            return
        self._seen[place] += 1
        if self._seen[place] > _SAME_MOST:
            return
        fields: dict[str, Any] = {"logger": record.name}
        try:
            text = record.getMessage()
            if record.exc_info:
                fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        except Exception as error:  # of a message whose arguments do not fit
            text = f"{record.msg} ({type(error).__name__})"
        self._log.write("library", record.levelname.lower(), text, fields)


def _clipped(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]}... ({len(value) - _LONGEST} characters more)"
    return value


def _standard_error() -> Console:
    from rich.console import Console

    class Patient(Console):
        """Falls silent when nobody listens, where rich would end the process."""

        def on_broken_pipe(self) -> None:
            self.quiet = True

    return Patient(file=sys.stderr, highlight=False, soft_wrap=True)
