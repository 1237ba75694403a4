"""How a command is stopped: one line and 130 or 143, at whatever moment a signal comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tilemap.testing import random_scene, write_geotiff

pytest.importorskip("onnxruntime")
STOPPED = "stopped; the same command continues\n"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LATE = """
import atexit, os, sys, time

def wait():
    os.write(1, b"here\\n")
    time.sleep(600)

def interrupted():
    wait()

def stubborn():
    try:
        wait()
    except KeyboardInterrupt:
        wait()

def optional():
    try:
        wait()
    except BaseException:
        raise ImportError("not here") from None

class Late:
    def find_spec(self, name, path=None, target=None):
        if name == module and self in sys.meta_path:
            sys.meta_path.remove(self)
            globals()[behaviour]()

module, behaviour = sys.argv.pop(1), sys.argv.pop(1)
if module == "exit":
    atexit.register(globals()[behaviour])
else:
    sys.meta_path.insert(0, Late())
from tilemap.cli.main import main
main()
"""
"""A command one of whose modules takes its time to load; or its exit does."""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene for the demo model."""
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    pixels = random_scene((40, 70), bands=len(names))
    return write_geotiff(tmp_path / "scene.tif", pixels, names=names, scale=1e-4)


def _segment(scene: Path, module: str, behaviour: str) -> subprocess.Popen[str]:
    """Start the command; it waits where it loads the module."""
    words = ["segment", str(scene), "--model", "iplunet-cloud-6b", "--workers", "1"]
    process = _start(module, behaviour, *words, "--out", str(scene.parent / "out"))
    _wait(process)
    return process


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LATE, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _wait(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line == "here\n":
            return
    raise AssertionError(process.communicate()[1])


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and the last line; no line is of a traceback."""
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    return process.returncode, errors.splitlines(keepends=True)[-1]


@pytest.mark.parametrize("number", CODES, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("module", ["typer", "tilemap.cli.nightly", "rasterio", "distributed"])
def test_stopped_while_modules_are_loaded(module: str, number: signal.Signals, scene: Path) -> None:
    """One line, no traceback; modules of tilemap, and compiled ones of others."""
    process = _segment(scene, module, "interrupted")
    process.send_signal(number)
    assert _ended(process) == (CODES[number], STOPPED)


@pytest.mark.parametrize("module", ["typer", "distributed"])
def test_stopped_where_the_interrupt_is_swallowed(module: str, scene: Path) -> None:
    """A module that somebody can do without hides the interrupt; the command ends all the same."""
    process = _segment(scene, module, "optional")
    process.send_signal(signal.SIGINT)
    assert _ended(process) == (130, STOPPED)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGTERM),
    ],
)  # fmt: skip
def test_stopped_twice(first: signal.Signals, second: signal.Signals, scene: Path) -> None:
    """What the first signal sets in motion takes long; the second ends the command at once."""
    process = _segment(scene, "distributed", "stubborn")
    process.send_signal(first)
    _wait(process)
    process.send_signal(second)
    assert _ended(process) == (CODES[first], STOPPED)


@pytest.mark.parametrize("number", CODES, ids=lambda number: signal.Signals(number).name)
def test_stopped_while_the_process_exits(number: signal.Signals) -> None:
    """What the command printed is there; no exit handler complains of an interrupt."""
    process = _start("exit", "interrupted", "--version")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("tilemap ")
    _wait(process)
    process.send_signal(number)
    assert _ended(process) == (CODES[number], STOPPED)
