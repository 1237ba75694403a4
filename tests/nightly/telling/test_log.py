"""The log: whole lines whatever happens, and a pass that never breaks by it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tilemap.cli.progress import ConsoleProgress
from tilemap.nightly.telling import PassLog
from tilemap.progress import Silent

ID = "20261126T021500Z"


def read(path: Path) -> list[dict[str, Any]]:
    """Every line of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain() -> Console:
    """A console that is no terminal."""
    return Console(file=io.StringIO(), width=200, highlight=False, soft_wrap=True)


def shown(console: Console) -> str:
    """What a person saw."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_an_event_is_a_line_and_a_sentence(tmp_path: Path) -> None:
    """JSON has all, the terminal the text, with its level in front unless it says so itself."""
    path, console = tmp_path / "logs" / f"{ID}.jsonl", plain()
    with PassLog(path, ID, console) as log:
        log.event("begin", text="ucayali/1: new", area="ucayali", kind="map", id="1")
        log.event("problem", "warning", "paraguay: 502")
        log.event("failed", "error", "error: no room", code=74, path=path)
        log.event("silent", seconds=1.5)
        log.event("deep", "debug", "not shown")
        assert len(read(path)) == 5  # before the file is closed
    assert shown(console) == "ucayali/1: new\nwarning: paraguay: 502\nerror: no room\n"
    first, _, third, fourth, _ = read(path)
    assert datetime.fromisoformat(first.pop("time")).utcoffset() is not None
    assert first == {
        "level": "info", "event": "begin", "pass": ID, "text": "ucayali/1: new",
        "area": "ucayali", "kind": "map", "id": "1",
    }  # fmt: skip
    assert (third["code"], third["path"], third["level"]) == (74, str(path), "error")
    assert "text" not in fourth
    assert len(fourth["time"]) == len("2026-11-26T02:15:00.000Z")


def test_no_secret_and_no_field_gets_lost(tmp_path: Path) -> None:
    """Addresses lose what is secret; a field named like one of ours keeps another name."""
    path, console = tmp_path / "a.jsonl", plain()
    with PassLog(path, ID, console) as log:
        log.event("x", text="https://me:hunter2@h/a?s=hunter2", url="s3://b/k?hunter2", time="noon")
    (line,) = read(path)
    assert "hunter2" not in path.read_text() + shown(console)
    assert line["time_"] == "noon"


def test_whatever_a_field_is(tmp_path: Path) -> None:
    """An object that cannot be printed, a text without end, a lone byte: there is a line."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    path = tmp_path / "a.jsonl"
    with PassLog(path, ID, plain()) as log:
        log.event("bad", thing=Bad())
        log.event("long", traceback="x" * 100_000)
        log.event("bytes", text="a\udcff")
    bad, long, odd = read(path)
    assert bad["unclear"] == "RuntimeError"
    assert long["traceback"].endswith("... (92000 characters more)")
    assert odd["text"] == "a\\udcff"


def test_it_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    """Earlier lines stay; half a line of a process that was killed does not spoil the next."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"event":"old"}\n{"event":"hal')
    with PassLog(path, ID, plain()) as log:
        log.event("new")
    old, half, new = path.read_text().splitlines()
    assert (json.loads(old)["event"], half) == ("old", '{"event":"hal')
    assert json.loads(new)["event"] == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_once(tmp_path: Path) -> None:
    """The pass goes on, and the terminal still tells of it."""
    path, console = tmp_path / "full.jsonl", plain()
    path.symlink_to("/dev/full")
    with PassLog(path, ID, console) as log:
        for number in range(3):
            log.event("e", text=f"event {number}")
    lines = shown(console).splitlines()
    assert lines[0] == f"cannot write the log {path}: No space left on device; the pass goes on"
    assert lines[1:] == ["event 0", "event 1", "event 2"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file stands where the folder of the logs should be."""
    (tmp_path / "logs").write_text("")
    console = plain()
    with PassLog(tmp_path / "logs" / "a.jsonl", ID, console) as log:
        log.event("e", text="on")
    assert "cannot write the log" in shown(console)
    assert shown(console).endswith("on\n")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond it; Python ignores the signal that would come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_room_again(tmp_path: Path) -> None:
    """Half a line was written when the disk was full: later lines are whole, the gap is told."""
    path = tmp_path / "a.jsonl"
    with PassLog(path, ID, plain()) as log:
        log.event("first")
        size = path.stat().st_size
        with file_size_limit(size + 10):
            log.event("lost")
            log.event("lost")
            assert path.stat().st_size == size + 10
        log.event("back")
        log.event("on")
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    assert json.loads(lines[0])["event"] == "first"
    gap, back, on = (json.loads(line) for line in lines[2:])
    assert (gap["event"], gap["lost"], gap["pass"]) == ("log_gap", 2, ID)
    assert (back["event"], on["event"]) == ("back", "on")


def test_a_terminal_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed file, and a pipe whose reader left: the JSON has everything."""
    closed = plain()
    closed.file.close()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        broken = io.TextIOWrapper(pipe, write_through=True)
        monkeypatch.setattr(sys, "stderr", broken)
        for name, console in (("closed", closed), ("pipe", None)):
            path = tmp_path / f"{name}.jsonl"
            with PassLog(path, ID, console, bar=ConsoleProgress) as log:
                log.event("e", text="one")
                log.progress("a", "map", "1").note("two")
            assert [line["text"] for line in read(path)] == ["one", "two"]
        monkeypatch.undo()
        with contextlib.suppress(BrokenPipeError):
            broken.detach()


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    """No line is torn or lost."""
    path = tmp_path / "a.jsonl"
    with PassLog(path, ID, plain()) as log:

        def work(number: int) -> None:
            for index in range(100):
                log.event("e", number=number, index=index, filler="x" * 500)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seen = {(line["number"], line["index"]) for line in read(path)}
    assert len(seen) == len(read(path)) == 800


def run(log: PassLog, clock: Clock) -> None:
    """A run of 100 tasks, 40 of them done before, one second each."""
    told = log.progress("ucayali", "map", "2026")
    told.note("warning  the scene declares no nodata")
    told.begin(100, 40, 60_000_000)
    for _ in range(60):
        clock.now += 1
        told.advance(object(), 1_000_000)
    told.end()
    told.end()


@pytest.mark.parametrize("bar", [None, ConsoleProgress])
def test_progress_of_a_run(
    tmp_path: Path, bar: Callable[[Console], ConsoleProgress] | None
) -> None:
    """Two events a minute, not one for each task; its end once, with its figures."""
    path, clock, console = tmp_path / "a.jsonl", Clock(), plain()
    with PassLog(path, ID, console, bar, every_s=30.0, clock=clock) as log:
        run(log, clock)
    lines = read(path)
    assert [line["event"] for line in lines] == [
        "note", "run_begin", "progress", "progress", "run_end",
    ]  # fmt: skip
    assert all((line["area"], line["kind"], line["id"]) == ("ucayali", "map", "2026")
               for line in lines)  # fmt: skip
    note, begin, half, _, end = lines
    assert note["level"] == "warning"
    assert (begin["tasks"], begin["before"], begin["pixels"]) == (100, 40, 60_000_000)
    assert (half["done"], half["seconds_left"], half["mpx_per_s"]) == (70, 30.0, 1.0)
    assert (end["done"], end["pixels"], end["seconds"]) == (100, 60_000_000, 60.0)
    assert "warning  the scene declares no nodata\n" in shown(console)
    if bar is None:
        assert "70 of 100 tasks, 1.00 Mpx/s, 30 s left\n" in shown(console)
    else:
        assert "continuing: 40 of 100 tasks were done before\n" in shown(console)


def test_a_bar_on_a_terminal_is_taken_away(tmp_path: Path) -> None:
    """Lines stand above the bar; a run that broke leaves none behind."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)

    def breaks() -> None:
        with PassLog(tmp_path / "a.jsonl", ID, console, ConsoleProgress) as log:
            told = log.progress("a", "map", "1")
            told.begin(4, 0, 100)
            told.advance(None, 25)
            log.event("e", text="above the bar")
            raise KeyError("broke")

    with pytest.raises(KeyError, match="broke"):
        breaks()
    assert "above the bar" in shown(console)
    assert "1/4" in shown(console)
    assert read(tmp_path / "a.jsonl")[-1]["event"] == "run_end"
    seen = len(shown(console))
    console.print("after")
    assert shown(console)[seen:] == "after\n"  # no bar is drawn below it any more


def test_libraries_are_heard_while_it_lasts(tmp_path: Path) -> None:
    """Warnings of the root and of loggers apart, once each; nothing below, nothing after."""
    path = tmp_path / "a.jsonl"
    apart = logging.getLogger("tilemap_test_apart")
    apart.propagate = False
    apart.addHandler(logging.NullHandler())
    below = logging.getLogger("tilemap_test_apart.below")
    try:
        with PassLog(path, ID, plain()) as log:
            logging.getLogger("tilemap_test").warning("slow %s", "https://me:pw@h/x?sig=1")
            logging.getLogger("tilemap_test").info("not this")
            apart.error("lost a worker")
            below.warning("%d", "no number")
            try:
                raise ValueError("inner")
            except ValueError:
                apart.exception("with its trace")
            for _ in range(100):
                apart.warning("again and again")
        apart.error("too late")
    finally:
        apart.propagate = True
    assert log is not None
    lines = read(path)
    told = [(line["logger"], line["level"], line["text"]) for line in lines[:4]]
    assert told == [
        ("tilemap_test", "warning", "slow https://h/x?..."),
        ("tilemap_test_apart", "error", "lost a worker"),
        ("tilemap_test_apart.below", "warning", "%d (TypeError)"),
        ("tilemap_test_apart", "error", "with its trace"),
    ]
    assert "ValueError: inner" in lines[3]["traceback"]
    assert len(lines) == 4 + 20 + 1
    assert (lines[-1]["event"], lines[-1]["left_out"]) == ("library_repeats", 80)


class Leaving(Silent):
    """A bar whose terminal has gone, or that a person stops."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause

    def end(self) -> None:
        """As rich leaves a broken pipe."""
        try:
            raise self.cause
        except type(self.cause):
            raise SystemExit(1) from None


def test_a_console_that_would_end_the_process(tmp_path: Path) -> None:
    """Only where a broken pipe is why; whoever stops the pass otherwise does stop it."""
    broken, stopped = Leaving(BrokenPipeError()), Leaving(KeyboardInterrupt())
    with PassLog(None, ID, plain(), lambda _: broken) as log:
        log.progress("a", "map", "1").end()
    log = PassLog(None, ID, plain(), lambda _: stopped)
    with pytest.raises(SystemExit):
        log.progress("a", "map", "1").end()


def test_libraries_that_speak_from_everywhere(tmp_path: Path) -> None:
    """A thousand places in the code are heard, not a million."""
    path = tmp_path / "a.jsonl"
    logger = logging.getLogger("tilemap_test")
    with PassLog(path, ID, plain()):
        for line in range(1500):
            told = logger.makeRecord("tilemap_test", logging.WARNING, "f", line, "m", (), None)
            logger.handle(told)
    assert len(read(path)) == 1000


def test_no_file_at_all() -> None:
    """For the terminal only."""
    console = plain()
    with PassLog(None, ID, console) as log:
        log.event("e", text="seen")
    log.event("e", text="after")
    assert shown(console) == "seen\nafter\n"


def test_by_default_it_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for results; markup in a name is no markup."""
    with PassLog(None, ID) as log:
        log.event("e", text="[bold]scene[/bold]")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "[bold]scene[/bold]\n")
