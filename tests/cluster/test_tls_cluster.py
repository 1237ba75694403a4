"""One scheduler and four workers over TLS, two of them with GPUs by declaration: the same bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from tilemap import api
from tilemap.cluster.address import security_of
from tilemap.cluster.table import TlsFiles
from tilemap.directory import RunDirectory
from tilemap.errors import UnavailableError
from tilemap.progress import Silent
from tilemap.run import RunResult

from .machines import Authority, Machines

pytestmark = pytest.mark.slow
OPTIONS: dict[str, Any] = {"model": api.DEMO_MODEL, "core": 96, "device": "cpu"}
"""100 tiles."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of it lies."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """Who signs the certificates of the cluster."""
    return Authority(folder / "authority")


@pytest.fixture(scope="module")
def machines(folder: Path, authority: Authority) -> Iterator[Machines]:
    """A scheduler, two workers without and two with a GPU, or so they say."""
    several = Machines(folder, authority)
    try:
        several.scheduler()
        for name in ("cpu-0", "cpu-1"):
            several.worker(name)
        for name in ("gpu-0", "gpu-1"):
            several.worker(name, "GPU=2")
        yield several
    finally:
        several.end()


@pytest.fixture(scope="module")
def table(machines: Machines, authority: Authority) -> dict[str, Any]:
    """Keys of the ``[cluster]`` table."""
    return {
        "kind": "address", "scheduler": machines.address, "tls": authority.issue("client"),
        "wait_s": 60,
    }  # fmt: skip


@pytest.fixture(scope="module")
def embedded(folder: Path) -> RunResult:
    """What a cluster of this machine makes of the scene."""
    return api.segment(api.demo_scene(), out=folder / "embedded", workers=1, **OPTIONS)


def _names(table: dict[str, Any]) -> dict[str, str]:
    """Names of the workers by their addresses."""
    security = security_of(TlsFiles(**table["tls"]))
    with Client(table["scheduler"], security=security, set_as_default=False) as client:
        workers = client.scheduler_info()["workers"]
        return {address: worker["name"] for address, worker in workers.items()}


def _same(one: RunResult, other: RunResult) -> None:
    assert one.status == other.status == "ok"
    for name in ("landcover.tif", "confidence.tif"):
        assert (one.directory / name).read_bytes() == (other.directory / name).read_bytes()


def test_the_same_bytes_and_each_worker_does_what_it_is_for(
    embedded: RunResult, table: dict[str, Any], folder: Path
) -> None:
    """Workers with a GPU segment and do nothing else; the others read and stitch."""
    result = api.segment(api.demo_scene(), out=folder / "tls", cluster=table, **OPTIONS)
    _same(embedded, result)
    names, did = _names(table), result.record["by_worker"]
    tiles = result.record["tiles"]["count"]
    stages = {names[address]: set(done) for address, done in did.items()}
    assert stages == {
        "cpu-0": {"tile", "stitch"}, "cpu-1": {"tile", "stitch"},
        "gpu-0": {"segment"}, "gpu-1": {"segment"},
    }  # fmt: skip
    for stage in ("tile", "segment", "stitch"):
        assert sum(done.get(stage, 0) for done in did.values()) == tiles
    assert result.record["tasks"]["total"] == 3 * tiles


def test_only_those_that_segment_have_loaded_the_model(
    embedded: RunResult, table: dict[str, Any]
) -> None:
    """The others need no GPU, and no torch either."""
    security = security_of(TlsFiles(**table["tls"]))
    with Client(table["scheduler"], security=security, set_as_default=False) as client:
        loaded = client.run(lambda: "torch" in __import__("sys").modules)
    names = _names(table)
    assert {names[address]: has for address, has in loaded.items()} == {
        "cpu-0": False, "cpu-1": False, "gpu-0": True, "gpu-1": True,
    }  # fmt: skip


class Events(Silent):
    """Kills a worker early in a run, and waits until another has taken its place."""

    def __init__(self, machines: Machines, table: dict[str, Any]) -> None:
        self._machines, self._table = machines, table
        self._segmented = 0
        self.killed = self.joined = ""

    def advance(self, receipt: Any, pixels: int) -> None:
        """After ten tiles."""
        self._segmented += receipt.stage == "segment"
        if self._segmented == 10 and not self.killed:
            names = {name: address for address, name in _names(self._table).items()}
            self.killed = names["gpu-1"]
            self._machines.kill("gpu-1")
            self.joined = self._machines.worker("gpu-2", "GPU=2")
            self._wait()

    def _wait(self) -> None:
        """Until the new worker has joined and has loaded the model."""

        def ready() -> bool:  # within, so that it travels as it is
            from tilemap import worker

            return any(context._held is not None for context in worker._contexts.values())

        security = security_of(TlsFiles(**self._table["tls"]))
        deadline = time.monotonic() + 60
        with Client(self._table["scheduler"], security=security, set_as_default=False) as client:
            while time.monotonic() < deadline:
                there = client.scheduler_info()["workers"]
                if self.joined in there and client.run(ready, workers=[self.joined])[self.joined]:
                    return
                time.sleep(0.1)
        raise AssertionError("the new worker did not join")


def test_a_worker_is_lost_and_another_joins(
    embedded: RunResult, machines: Machines, table: dict[str, Any], folder: Path
) -> None:
    """In the middle of a run: its tasks are done by the others, and the new one takes part."""
    events = Events(machines, table)
    result = api.segment(
        api.demo_scene(), out=folder / "lost", cluster=table, progress=events, **OPTIONS
    )
    _same(embedded, result)
    did = result.record["by_worker"]
    assert set(did[events.joined]) == {"segment"}
    assert did.get(events.killed, {}).get("segment", 0) < 20
    assert result.record["quarantined"] == []


def test_another_authority_is_not_let_in(
    table: dict[str, Any], folder: Path, authority: Authority
) -> None:
    """Neither side trusts the other; the driver says so in time, and leaves nothing."""
    stranger = Authority(folder / "stranger").issue("client")
    own = authority.issue("client")
    for tls in (stranger, {**stranger, "ca": own["ca"]}, {**own, "ca": stranger["ca"]}):
        out = folder / "refused"
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"must answer at tls://.* within 6 s") as caught:
            api.segment(
                api.demo_scene(), out=out, cluster={**table, "tls": tls, "timeout_s": 6}, **OPTIONS
            )
        assert caught.value.exit_code == 69
        assert time.monotonic() - started < 60
        assert not RunDirectory(out).stores.exists()
