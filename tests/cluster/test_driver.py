"""A driver that ends in whatever way leaves nothing on a shared scheduler; nor does it blame itself
for a scheduler or a worker that goes.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client

from tilemap import api
from tilemap.cluster import driver
from tilemap.cluster.driver import by_value
from tilemap.errors import UnavailableError
from tilemap.progress import Silent
from tilemap.testing import random_scene, write_config, write_geotiff

from .machines import Machines

pytestmark = pytest.mark.slow
OPTIONS: dict[str, Any] = {"model": api.DEMO_MODEL, "core": 256, "device": "cpu"}
SECONDS = 60

DRIVER = """
import sys, time
from tilemap import api
from tilemap.progress import Silent

def stop(*_):
    print("open", flush=True)
    time.sleep(600)

class Stops(Silent):
    advance = stop

kind, scheduler, out, *inputs = sys.argv[1:]
if kind == "segment":
    api.segment(api.demo_scene(), model=api.DEMO_MODEL, core=256, device="cpu", out=out,
                scheduler=scheduler, progress=Stops())
elif kind == "change":
    api.change(inputs, dates=["2020-01-01", "2021-01-01"], out=out, scheduler=scheduler,
               progress=Stops())
elif kind == "nightly":
    from tilemap.cli import main, progress
    progress.ConsoleProgress.advance = stop  # in a thread, which no interrupt reaches
    sys.argv = ["tilemap", "nightly", inputs[0]]
    main.main()
else:
    api.evaluate(inputs[0], reference=inputs[0] + "/landcover.tif", scheduler=scheduler,
                 progress=stop)
"""
"""Stops when its first task is done, and waits to be killed."""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A scheduler that several drivers share, and a worker."""
    several = Machines(tmp_path_factory.mktemp("machines"))
    try:
        several.scheduler()
        several.worker("first")
        yield several
    finally:
        several.end()


@pytest.fixture(scope="module")
def runs(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs with their probabilities."""
    outs = [tmp_path_factory.mktemp("runs") / str(number) for number in range(2)]
    for out in outs:
        api.segment(
            api.demo_scene(), out=out, probabilities=True, scheduler=machines.address, **OPTIONS
        )
    return outs


@pytest.fixture
def start(machines: Machines) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a driver that has its run open; all are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(kind: str, out: Path, *inputs: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, kind, machines.address, str(out)]
        process = subprocess.Popen(
            [*command, *map(str, inputs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        if process.stdout.readline() != "open\n":
            raise AssertionError(process.communicate()[1])
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _left(address: str) -> list[str]:
    """What drivers have on the scheduler and in its workers."""

    def of_scheduler(dask_scheduler: Any) -> list[str]:
        return [*dask_scheduler.worker_plugins, *dask_scheduler.plugins]

    def of_worker(dask_worker: Any) -> list[str]:
        import sys

        held = [*dask_worker.plugins]
        for name, attribute in (
            ("tilemap.worker", "_contexts"), ("tilemap.evaluation.counting", "_counters"),
        ):  # fmt: skip
            held += [f"tilemap: {run}" for run in getattr(sys.modules.get(name), attribute, ())]
        changing = sys.modules.get("tilemap.changing.working")
        return held + [f"tilemap: {run}" for run in (changing._contexts.known if changing else ())]

    with Client(address, set_as_default=False) as client:
        found = client.run_on_scheduler(of_scheduler)
        for names in client.run(of_worker).values():
            found += names
    return sorted(name for name in found if "tilemap" in name)


def _nothing_is_left(address: str) -> None:
    deadline = time.monotonic() + SECONDS
    while left := _left(address):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _a_worker_joins_and_stays(machines: Machines, name: str, nanny: bool = False) -> None:
    address = machines.worker(name, nanny=nanny)
    try:
        with Client(machines.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=SECONDS)
            time.sleep(1)
            assert address in client.nthreads()
    finally:
        machines.kill(name)


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, signal.SIGINT],
    ids=lambda number: signal.Signals(number).name,
)
@pytest.mark.parametrize("kind", ["segment", "change", "evaluate", "nightly"])
def test_a_driver_that_dies_leaves_nothing(
    kind: str,
    number: signal.Signals,
    machines: Machines,
    runs: list[Path],
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    """On scheduler and workers; whoever joins later stays, though the run's directory is gone."""
    inputs = [_night(tmp_path, machines.address)] if kind == "nightly" else runs
    process = start(kind, tmp_path / "out", *inputs)
    assert any(kind in name or kind in ("segment", "nightly") for name in _left(machines.address))
    process.send_signal(number)
    process.wait(timeout=SECONDS)
    _nothing_is_left(machines.address)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    # a nanny would start a worker again that leaves, under another address
    _a_worker_joins_and_stays(machines, f"{kind}-{number}", nanny=number is signal.SIGTERM)


def _night(folder: Path, scheduler: str) -> Path:
    """A configuration of one scene."""
    (folder / "incoming").mkdir()
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    scene = folder / "incoming" / "s20200701.tif"
    pixels = random_scene((150, 210), bands=len(names))
    write_geotiff(scene, pixels, names=names, scale=1e-4)
    os.utime(scene, (1.6e9, 1.6e9))
    area = {"name": "town", "scenes": [str(scene.parent)]}
    table = {
        "model": api.DEMO_MODEL, "nightly": {"root": str(folder / "out")}, "areas": [area],
        "cluster": {"kind": "address", "scheduler": scheduler},
    }  # fmt: skip
    return write_config(folder / "nightly.toml", table)


def test_a_driver_that_ends_well_leaves_nothing(machines: Machines, runs: list[Path]) -> None:
    """What turned other software away and gave the workers their roles goes with it."""
    _nothing_is_left(machines.address)


def test_the_same_run_continues_at_once(
    machines: Machines,
    start: Callable[..., subprocess.Popen[str]],
    runs: list[Path],
    tmp_path: Path,
) -> None:
    """The clean-up after a driver takes nothing from the next one, which has the same run open."""
    start("segment", tmp_path / "out").kill()
    result = api.segment(
        api.demo_scene(), out=tmp_path / "out", scheduler=machines.address, **OPTIONS
    )
    assert result.status == "ok"
    assert result.record["quarantined"] == []
    assert result.landcover.read_bytes() == (runs[0] / "landcover.tif").read_bytes()
    _nothing_is_left(machines.address)


def test_the_other_driver_keeps_what_it_has(
    machines: Machines,
    start: Callable[..., subprocess.Popen[str]],
    runs: list[Path],
    tmp_path: Path,
) -> None:
    """Of two that share a scheduler one dies; the run of the other stays open."""
    start("segment", tmp_path / "stays")
    before = _left(machines.address)
    other = start("evaluate", tmp_path / "out", runs[0])
    assert set(_left(machines.address)) > set(before)
    other.kill()
    deadline = time.monotonic() + SECONDS
    while (left := _left(machines.address)) != before:
        assert set(left) >= set(before)
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


class When(Silent):
    """Does something at a moment of a run."""

    def __init__(self, moment: str, do: Callable[[], None]) -> None:
        self.moment, self.do = moment, do

    def _at(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            self.do()

    def note(self, text: str) -> None:
        """Before anything is opened: the note that says where the tasks run."""
        if text.startswith("dashboard"):
            self._at("before")

    def begin(self, total: int, done: int, pixels: int) -> None:
        """When a run is open."""
        self._at("open")

    def advance(self, receipt: Any, pixels: int) -> None:
        """When a task is done."""
        self._at("tasks")


def _do(kind: str, runs: list[Path], **options: Any) -> Any:
    if kind == "segment":
        return api.segment(api.demo_scene(), **OPTIONS, **options)
    return api.change(runs, dates=["2020-01-01", "2021-01-01"], **options)


@pytest.mark.parametrize(
    ("kind", "moment"),
    [("segment", "before"), ("segment", "open"), ("segment", "tasks"), ("change", "before")],
)
def test_a_scheduler_that_goes_is_no_bug(
    kind: str, moment: str, runs: list[Path], tmp_path: Path
) -> None:
    """Whatever was being asked of it: exit 69, and the same command continues elsewhere."""
    own = Machines(tmp_path)
    try:
        address = own.scheduler()
        own.worker("one")
        with pytest.raises(UnavailableError, match="the same command continues"):
            _do(
                kind, runs, out=tmp_path / "out", scheduler=address,
                progress=When(moment, lambda: own.kill("scheduler")),
            )  # fmt: skip
    finally:
        own.end()


@pytest.mark.parametrize(("kind", "moment"), [("segment", "before"), ("change", "open")])
def test_a_worker_that_dies_while_a_run_is_opened_is_done_without(
    kind: str, moment: str, machines: Machines, runs: list[Path], tmp_path: Path
) -> None:
    """The others go on."""
    name = f"dies-{kind}-{moment}"
    address = machines.worker(name)
    with Client(machines.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=SECONDS)
        assert address in client.nthreads()
    result = _do(
        kind, runs, out=tmp_path / "out", scheduler=machines.address,
        progress=When(moment, lambda: os.kill(machines.process(name), signal.SIGKILL)),
    )  # fmt: skip
    machines.kill(name)
    assert result.status == "ok"
    assert result.record["quarantined"] == []


def test_several_threads_may_send_a_module_at_a_time() -> None:
    """A night opens several runs at once; the first that is done takes nothing away."""
    with ExitStack() as first, by_value(driver):
        first.enter_context(by_value(driver))
        first.close()
        assert len(cloudpickle.dumps(driver._drop)) > len(pickle.dumps(driver._drop)) + 100
    assert len(cloudpickle.dumps(driver._drop)) <= len(pickle.dumps(driver._drop)) + 100
