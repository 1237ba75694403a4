"""compose.yaml without a container engine: its commands as processes, each with its certificate.

Every container has the loopback interface here, every volume is a folder, and ports that would
meet are others. The rest is as the file says: entry points, options, environment, health checks.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import rasterio

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PROGRAMS = {
    "dask": [str(BIN / "dask")],
    "tilemap": [str(BIN / "tilemap")],
    "tilemap-health": [sys.executable, str(ROOT / "docker" / "health.py")],
    "tilemap-certificates": [sys.executable, str(ROOT / "docker" / "certificates.py")],
}
PACKAGES = "/opt/tilemap/lib/python3.11/site-packages"
START_S, WAIT_S = 60, 90


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Container:
    """One service of compose.yaml as a process."""

    name: str
    service: Mapping[str, Any]
    words: dict[str, str]
    """What stands for what: paths, hosts, ports."""
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def translate(self, text: str) -> str:
        """Paths, hosts and ports of the container to those of this machine, each once."""
        longest_first = sorted(self.words, key=len, reverse=True)
        either = "|".join(re.escape(word) for word in longest_first)
        return re.sub(rf"(?<!\w)({either})(?!\w)", lambda found: self.words[found[1]], text)

    def command(self, more: list[str] | None = None) -> list[str]:
        """The process that the container's init would start."""
        words = self.service.get("entrypoint", ["tini", "--", "tilemap"])
        assert words[:2] == ["tini", "--"]
        rest = [self.translate(word) for word in more or self.service["command"]]
        host = [] if "dask" not in words else ["--host", "127.0.0.1"]
        return [*PROGRAMS[words[2]], *words[3:], *rest, *host]

    def variables(self) -> dict[str, str]:
        """Its environment: what this machine needs, and env_file."""
        own = {key: self.translate(value) for key, value in self.environment.items()}
        kept = {
            key: os.environ[key] for key in ("PATH", "TILEMAP_HOME", "HOME") if key in os.environ
        }
        return {**kept, **own}

    def start(self) -> None:
        """Begin; it is stopped by ``stop``."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.variables(), stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self) -> int:
        """As an engine does: ask, and wait."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)

    def run(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """One that ends by itself."""
        return subprocess.run(
            self.command(list(more) or None),
            env={**self.variables(), **variables},
            check=False, capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip

    def healthy(self) -> bool:
        """What its health check says now."""
        kind, program, *rest = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        ports = ["--port", self.words["8788"]] if rest == ["worker"] else []
        command = [*PROGRAMS[program], *rest, *ports, "--scheduler-port", self.words["8786"]]
        ran = subprocess.run(
            command, env=self.variables(), check=False, capture_output=True, text=True, timeout=30
        )
        assert (ran.returncode == 0) == (ran.stderr == "")
        return ran.returncode == 0

    def becomes(self, healthy: bool) -> None:
        """Wait for it."""
        deadline = time.monotonic() + START_S
        while self.healthy() != healthy:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.3)


@dataclass
class Topology:
    """All of compose.yaml on this machine."""

    compose: Mapping[str, Any]
    environment: Mapping[str, str]
    folder: Path
    ports: list[int]

    def container(self, name: str, replica: int = 0) -> Container:
        """One of a service."""
        service = self.compose["services"][name]
        scheduler, dashboard, *others = self.ports
        worker, nanny = others[2 * replica : 2 * replica + 2]
        words = {PACKAGES: str(ROOT)}
        for volume in service["volumes"]:
            source, target = self.volume(volume)
            words[target] = str(source)
        words |= {"tilemap-scheduler": "127.0.0.1", "8786": str(scheduler)}
        words |= {":8787": f"127.0.0.1:{dashboard}", "8788": str(worker), "8789": str(nanny)}
        log = self.folder / f"{name}-{replica}.log"
        return Container(name, service, words, self.environment, log)

    def volume(self, volume: Any) -> tuple[Path, str]:
        """Folder of this machine and path in the container."""
        if isinstance(volume, dict):
            name, target = str(volume["target"]).strip("/"), volume["target"]
        else:
            name, target = volume.split(":")[:2]
        if name.startswith("./"):
            return ROOT / "docker" / name[2:], target
        source = self.folder / "volumes" / name.replace("/", "-")
        source.mkdir(parents=True, exist_ok=True)
        return source, target


@pytest.fixture(scope="module")
def topology(
    compose: Any, dask_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Topology:
    """With certificates, made by the service that makes them."""
    found = Topology(compose, dask_env, tmp_path_factory.mktemp("compose"), free_ports(6))
    certificates = found.container("certificates")
    # one folder for the script, as four mounts below one folder are
    targets = {t: s for t, s in certificates.words.items() if t.startswith("/certs/")}
    certs = found.folder / "certs"
    certs.mkdir()
    for target, source in targets.items():
        (certs / target.removeprefix("/certs/")).symlink_to(source)
    ran = certificates.run(
        *(w.replace("/certs", str(certs)) for w in certificates.service["command"])
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("made") == 4
    return found


@pytest.fixture(scope="module")
def cluster(topology: Topology) -> Iterator[list[Container]]:
    """Scheduler and two workers, healthy; before they start, they are not."""
    scheduler = topology.container("scheduler")
    workers = [topology.container("worker", replica) for replica in range(2)]
    started: list[Container] = []
    assert not scheduler.healthy()
    try:
        scheduler.start()
        started.append(scheduler)
        scheduler.becomes(healthy=True)
        assert not any(worker.healthy() for worker in workers)
        for worker in workers:
            worker.start()
            started.append(worker)
        for worker in workers:
            worker.becomes(healthy=True)
        yield started
    finally:
        for container in reversed(started):
            container.stop()


def test_each_role_has_a_key_of_its_own(topology: Topology) -> None:
    """Readable by its owner alone; the authority's key is in no role's volume."""
    volumes = topology.folder / "volumes"
    keys = {path.parent.name: path for path in volumes.glob("*/key.pem")}
    assert set(keys) == {"authority"} | {
        f"certificate-{role}" for role in ("scheduler", "worker", "client")
    }
    assert len({path.read_bytes() for path in keys.values()}) == 4
    for path in keys.values():
        assert path.stat().st_mode & 0o777 == 0o600, path
    authorities = {path.read_bytes() for path in volumes.glob("certificate-*/ca.pem")}
    assert authorities == {(volumes / "authority" / "ca.pem").read_bytes()}


@pytest.mark.slow
def test_client_maps_the_demo(topology: Topology, cluster: list[Container]) -> None:
    """The client's own command, over TLS, on two workers; all stay well meanwhile."""
    client = topology.container("client")
    ran = client.run()
    assert ran.returncode == 0, ran.stderr
    out = topology.folder / "volumes" / "out" / "demo"
    with rasterio.open(out / "landcover.tif") as landcover:
        assert set(landcover.read(1).ravel()) <= {0, 1, 2, 3, 4, 255}
    assert all(container.healthy() for container in cluster)


@pytest.mark.slow
def test_the_nightly_job(topology: Topology, cluster: list[Container], tmp_path: Path) -> None:
    """nightly.toml as it is, but for the places: one scene published, then nothing left to do."""
    nightly = topology.container("nightly")
    scene = topology.folder / "volumes" / "in" / "example" / "va-eastern-shore"
    scene.mkdir(parents=True)
    for path in (ROOT / "tilemap" / "data" / "scenes").glob("*.tif"):
        copied = Path(shutil.copy(path, scene))
        os.utime(copied, (0, 0))  # as if it had lain there for long
    config = tmp_path / "nightly.toml"
    config.write_text(nightly.translate((ROOT / "docker" / "nightly.toml").read_text()))
    nightly.words["/etc/tilemap/nightly.toml"] = str(config)
    first = nightly.run()
    assert first.returncode == 0, first.stderr
    root = topology.folder / "volumes" / "out" / "tilemap"
    published = {path: path.stat().st_mtime_ns for path in root.glob("products/example/**/*.tif")}
    assert {path.name for path in published} >= {"landcover.tif", "confidence.tif"}
    assert (root / "tilemap.prom").is_file()
    again = nightly.run()
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in published} == published
    assert all(container.healthy() for container in cluster)


@pytest.mark.slow
def test_strangers_are_refused(
    topology: Topology, cluster: list[Container], tmp_path: Path
) -> None:
    """A certificate of another authority, and none at all: unavailable, and nothing is written."""
    program = PROGRAMS["tilemap-certificates"]
    subprocess.run([*program, str(tmp_path)], check=True, capture_output=True, timeout=60)
    client = topology.container("client")
    client.words["/certs"] = str(tmp_path / "client")
    client.words["/out"] = str(tmp_path / "out")
    stranger = client.run()
    plain = client.run(
        *(word.replace("tls://", "tcp://") for word in client.service["command"]),
        DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION="false",
    )
    for ran in (stranger, plain):
        assert ran.returncode == 69, ran.stderr
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()
    assert all(container.healthy() for container in cluster)


@pytest.mark.slow
def test_a_worker_that_is_stopped_leaves_in_order(
    topology: Topology, cluster: list[Container]
) -> None:
    """SIGTERM ends it within the grace of an engine; its health check says so."""
    worker = cluster[-1]
    assert worker.stop() == 0, worker.log.read_text()
    assert not worker.healthy()
    text = worker.log.read_text()
    assert "Traceback" not in text
    assert "closed before handshake" not in text
