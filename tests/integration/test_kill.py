"""Nothing is lost: kill anything at any moment, run the same command again, get the same bytes.

``TILEMAP_KILLS`` says how many moments are tried (default 4; 20 takes about five minutes);
a quarter as many are tried of each command with each signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tilemap.api import DEMO_MODEL, demo_scene
from tilemap.cluster import THREADS_PER_WORKER
from tilemap.testing import random_scene, write_config, write_geotiff, write_toy_scene

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TILEMAP_KILLS", "4"))
WORKERS = 2
PRODUCTS = ("landcover.tif", "confidence.tif", "landcover.tif.aux.xml", "landcover.qml")


def _command(out: Path) -> list[str]:
    scenes = [str(path) for path in demo_scene()]
    return [
        sys.executable, "-m", "tilemap.cli.main", "segment", *scenes, "--model",
        "iplunet-cloud-6b", "--core", "96", "--workers", str(WORKERS), "--out", str(out),
    ]  # fmt: skip


def _start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(out: Path) -> dict[str, object]:
    done = subprocess.run(_command(out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record: dict[str, object] = json.loads((out / "run.json").read_text())
    return record


def _products(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in PRODUCTS}


def _marked(out: Path) -> dict[Path, int]:
    """Chunks of the tiles marked done in the prediction store, with the time they were written."""
    store = out / "stores" / "predictions.zarr"
    marks = (store / "done" / "c").glob("*/*")
    chunks = [store / "label" / "c" / mark.parent.name / mark.name for mark in marks]
    return {chunk: chunk.stat().st_mtime_ns for chunk in chunks}


def _unmarked(out: Path) -> int:
    """Tiles of which something was written but which are not marked done."""
    store = out / "stores" / "predictions.zarr"
    marks = {(m.parent.name, m.name) for m in (store / "done" / "c").glob("*/*")}
    begun = {(c.parent.name, c.name) for c in (store / "label" / "c").glob("*/*")}
    return len({b for b in begun if "." not in b[1]} - marks)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, bytes], float]:
    """Products of a run that nobody disturbs, and the seconds it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    _finish(out)  # measures the model, which only the first run does
    start = time.monotonic()
    subprocess.run([*_command(out), "--fresh"], check=True, capture_output=True)
    return _products(out), time.monotonic() - start


@pytest.mark.parametrize("moment", range(KILLS))
def test_killed_at_a_random_moment(
    moment: int, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """SIGKILL to the whole process group; what was marked done is not done again."""
    want, seconds = undisturbed
    # One moment in each of KILLS equal parts of the run, so that all of it is covered.
    share = (moment + random.Random(moment).random()) / KILLS
    out = tmp_path / "run"
    process = _start(out)
    time.sleep(share * seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.3)  # let the last write of a dying process land
    marked, begun = _marked(out), _unmarked(out)
    record = _finish(out)
    assert _products(out) == want
    assert begun <= WORKERS * THREADS_PER_WORKER
    after = _marked(out)
    assert {chunk: after[chunk] for chunk in marked} == marked
    tasks = record["tasks"]
    assert isinstance(tasks, dict)
    assert tasks["done"] + tasks["resumed"] == tasks["total"]


def test_a_killed_worker_is_replaced(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """A worker process killed in the middle: the run goes on and ends ok, with the same bytes."""
    out = tmp_path / "run"
    process = _start(out)
    deadline = time.monotonic() + 120
    while len(list((out / "stores" / "predictions.zarr" / "done" / "c").glob("*/*"))) < 8:
        assert process.poll() is None, "the run ended before a worker could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
    assert workers
    workers[-1].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert _products(out) == undisturbed[0]


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_chunks_are_made_again(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """A flipped bit and a lost chunk, found when the run continues: the same bytes in the end."""
    out = tmp_path / "run"
    _finish(out)
    stores = out / "stores"
    (out / "run.json").unlink()
    shutil.rmtree(stores / "map.zarr" / "done" / "c")
    predictions = stores / "predictions.zarr"
    _flip_a_bit(predictions / "label" / "c" / "0" / "1")
    _flip_a_bit(predictions / "right" / "c" / "3" / "3" / "0" / "0" / "0")
    (predictions / "bottom" / "c" / "5" / "2" / "0" / "0" / "0").unlink()
    _flip_a_bit(stores / "tiles.zarr" / "image" / "c" / "3" / "3" / "0" / "0" / "0")
    record = _finish(out)
    assert _products(out) == undisturbed[0]
    tasks = record["tasks"]
    assert isinstance(tasks, dict)
    assert tasks["retried"] >= 2


# --- every command, every way to stop it -------------------------------------------------------

SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
"""What a command ends with."""
RESULTS = {
    "segment": "*.tif",
    "change": "*.tif",
    "train": "model/model.safetensors",
    "evaluate": "*.csv",
    "nightly": "products/**/*.tif",
}
"""Files whose bytes must not depend on what happened meanwhile."""
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
MOMENTS = max(1, KILLS // 4)
NIGHTLY = """
model = "{model}"
nightly = {{ root = "{root}" }}
segment = {{ core = 64 }}
change = {{ mmu_ha = 0.0 }}
cluster = {{ workers = 2 }}
areas = [{{ name = "town", scenes = ["incoming"] }}]
"""


class Place:
    """A folder with everything that the commands read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "incoming").mkdir(parents=True)
        for number, day in enumerate(("20200701", "20210701")):
            image = random_scene((150, 210), bands=len(BANDS), seed=number)
            path = folder / "incoming" / f"s{day}.tif"
            write_geotiff(path, image, names=BANDS, scale=1e-4)
            os.utime(path, (1.6e9, 1.6e9))
        write_config(folder / "config.toml", write_toy_scene(folder))
        for number, scene in enumerate(self.scenes):
            run = ["segment", scene, "-m", DEMO_MODEL, "--probabilities", "--workers", "1"]
            process = self.start([*run, "--out", f"run{number}"])
            _, errors = process.communicate()
            assert process.returncode == 0, errors

    @property
    def scenes(self) -> list[str]:
        """Of two days."""
        return ["incoming/s20200701.tif", "incoming/s20210701.tif"]

    def words(self, name: str, out: str) -> list[str]:
        """One command that writes into a folder."""
        words = {
            "segment": [self.scenes[0], "-m", DEMO_MODEL, "--core", "64", "--workers", "2"],
            "change": ["run0", "run1", "--core", "64", "--mmu-ha", "0", "--workers", "2"],
            "train": ["config.toml", "--threads", "1"],
            "evaluate": ["run0", "--reference", "run1/landcover.tif", "--workers", "2"],
            "nightly": [f"{out}.toml"],
        }[name]
        if name == "nightly":
            text = NIGHTLY.format(model=DEMO_MODEL, root=out)
            (self.folder / f"{out}.toml").write_text(text)
        return [name, *words, *(() if name == "nightly" else ("--out", out))]

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        """A command in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tilemap.cli.main", *words], cwd=self.folder, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def finish(self, name: str, out: str) -> dict[str, bytes]:
        """Run a command to its end; its results by file."""
        process = self.start(self.words(name, out))
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        return self.results(name, out)

    def results(self, name: str, out: str) -> dict[str, bytes]:
        """What a command has published by now."""
        found = self.folder / out
        return {
            str(path.relative_to(found)): path.read_bytes()
            for path in sorted(found.glob(RESULTS[name]))
        }


class Watch:
    """Everything that appears in the folder that a command writes into, and when it is seen.

    A busy machine stretches a run unevenly, so its moments are counted by what it has written.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        self._started = time.monotonic()
        self._seen: dict[tuple[str, int], float] = {}

    def until(self, entries: float, seconds: float = float("inf")) -> None:
        """Wait for so many entries, or so long, or until the process ends."""
        while self._process.poll() is None:
            now = time.monotonic() - self._started
            with contextlib.suppress(FileNotFoundError):  # a folder has been renamed
                for path in (self._folder, *self._folder.rglob("*")):
                    self._seen.setdefault((str(path), path.lstat().st_ino), now)
            if len(self._seen) >= entries or now >= seconds:
                return
            time.sleep(0.005)

    @property
    def opened_s(self) -> float:
        """Seconds until the first entry."""
        return min(self._seen.values())

    def __len__(self) -> int:
        return len(self._seen)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One folder for all."""
    return Place(tmp_path_factory.mktemp("commands") / "here")


class Whole(NamedTuple):
    """A run that nobody disturbs: results, seconds until it writes, and entries it makes."""

    results: dict[str, bytes]
    opened_s: float
    entries: int


@pytest.fixture(scope="module")
def whole(place: Place) -> Callable[[str], Whole]:
    """The undisturbed run of a command, made once."""

    @cache
    def run(name: str) -> Whole:
        out = f"whole-{name}"
        process = place.start(place.words(name, out))
        watch = Watch(process, place.folder / out)
        watch.until(float("inf"))
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        results = place.results(name, out)
        assert results
        return Whole(results, watch.opened_s, len(watch))

    return run


def _is_alone(group: int) -> bool:
    """Return True if no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return all(
        process.status() == psutil.STATUS_ZOMBIE
        for process in psutil.process_iter()
        if _group_of(process) == group
    )


def _group_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return None


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("name", RESULTS)
def test_stopped_and_continued(
    name: str,
    number: signal.Signals,
    moment: int,
    place: Place,
    whole: Callable[[str], Whole],
) -> None:
    """Stopped in a line, no process left; the same command then gives the same bytes.

    Ctrl-C reaches all processes of the terminal, the others the driver alone. A quarter of the
    moments is before the command writes anything, the others are spread over what it writes.
    """
    want = whole(name)
    out = f"{name}-{number.name}-{moment}"
    share = (moment + random.Random(out).random()) / MOMENTS
    process = place.start(place.words(name, out))
    watch = Watch(process, place.folder / out)
    if share < 0.25:
        watch.until(1, max(0.3, 4 * share * want.opened_s))  # Python itself must have started
    else:
        watch.until((share - 0.25) / 0.75 * want.entries)
    if number is signal.SIGINT:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    stage = f"{len(watch)} of {want.entries} entries, {process.returncode}: {errors}"
    if process.returncode == -number != -signal.SIGKILL:
        # Python itself has taken the signal: it had not begun the command, or had ended it
        assert place.results(name, out) in ({}, want.results), stage
    else:
        assert process.returncode in (SIGNALS[number], 0), stage
    assert "Traceback" not in errors, stage
    assert "a bug" not in errors, stage
    if process.returncode > 0:
        assert "stopped; the same command continues" in errors.splitlines()[-1]
    deadline = time.monotonic() + 60
    while not _is_alone(process.pid):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)
    assert place.finish(name, out) == want.results, stage
