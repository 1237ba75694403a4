"""An embedded cluster: who reaches its processes, what they import, which cores they have."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster, Worker
from distributed.comm import connect as knock

from tilemap import api
from tilemap.cluster import ClusterSettings, connect
from tilemap.cluster.settings import usable_cores
from tilemap.errors import ConfigError
from tilemap.worker import settle

SETTINGS = ClusterSettings(workers=1, memory_limit=1 << 30)
SECRET = b"PRIVATE KEY"


def _ports() -> dict[int, list[psutil.Process]]:
    """What this process and its children listen on."""
    me = psutil.Process()
    found: dict[int, list[psutil.Process]] = {}
    for process in [me, *me.children(recursive=True)]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1", connection
                found.setdefault(connection.laddr.port, []).append(process)
    return found


def _said_to_a_stranger(port: int) -> bytes:
    """What a process says first to a peer that speaks TLS and has no certificate."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            stranger.wrap_socket(plain) as wrapped,
        ):
            return wrapped.recv(1)  # TLS 1.3 tells of a missing certificate with the first read
    except (ssl.SSLError, ConnectionError):
        return b""


def test_whoever_has_no_certificate_is_not_let_in() -> None:
    """No port of scheduler, nanny or worker takes a word from a client of the same machine."""
    with connect(SETTINGS) as client:
        info = client.scheduler_info()
        addresses = [info["address"]]
        for worker in info["workers"].values():
            addresses += [worker["nanny"]]
        addresses += info["workers"]
        assert len(addresses) == 3
        ports = set(_ports())
        for address in addresses:
            assert address.startswith("tls://127.0.0.1:")
            port = int(address.rpartition(":")[2])
            assert port in ports
            for scheme in ("tcp", "tls"):
                with pytest.raises((OSError, TypeError, ValueError)):
                    asyncio.run(knock(f"{scheme}://127.0.0.1:{port}", timeout=1))
            assert _said_to_a_stranger(port) == b""
        assert client.submit(os.getpid).result() != os.getpid()


def test_two_runs_do_not_let_each_other_in() -> None:
    """Each has a key of its own."""
    with connect(SETTINGS) as one, connect(SETTINGS) as other:
        address = one.scheduler_info()["address"]
        with pytest.raises(OSError, match=r"(?i)certificate|connect"):
            Client(address, security=other.security, timeout=2, set_as_default=False)


def test_the_key_is_where_no_other_user_can_read_it() -> None:
    """Neither in a command line nor an environment, nor in a file that stays open."""
    with connect(SETTINGS):
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            for name in ("cmdline", "environ"):
                assert SECRET not in Path(f"/proc/{process.pid}/{name}").read_bytes()
            for file in process.open_files():
                path = Path(file.path)
                if path.stat().st_size < 1 << 20:
                    assert SECRET not in path.read_bytes()


SCRIPT = """
import sys
import tilemap
from tilemap.api import demo_scene
print("script", flush=True)
result = tilemap.segment(demo_scene(), model="tilemap-demo-5class", out=sys.argv[1], core=256,
                         workers=1, memory_limit="1GiB")
print(result.status)
"""


def test_a_script_without_a_guard_works(tmp_path: Path) -> None:
    """It is run once, although its workers are spawned."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout == "script\nok\n", ran.stderr
    assert "Traceback" not in ran.stderr


REPLACED = """
import os, signal, time
from tilemap.cluster import ClusterSettings, connect
print("script", flush=True)
with connect(ClusterSettings(workers=1, memory_limit=1 << 30)) as client:
    (before,) = client.run(os.getpid).values()
    os.kill(before, signal.SIGKILL)
    while (now := list(client.run(os.getpid, on_error="ignore").values())) in ([], [before]):
        time.sleep(0.1)
    print("replaced")
"""


def test_a_replaced_worker_does_not_run_the_script(tmp_path: Path) -> None:
    """It is spawned long after the first ones."""
    script = tmp_path / "script.py"
    script.write_text(REPLACED)
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.stdout == "script\nreplaced\n", ran.stderr


POOL = """
import multiprocessing, tilemap
from tilemap.api import demo_scene

def work():
    pass

if __name__ == "__mp_main__":  # as Python calls it there
    try:
        tilemap.segment(demo_scene(), model="tilemap-demo-5class", out="out", core=256)
    except tilemap.errors.TilemapError as error:
        print("refused:", error, flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
"""


def test_a_script_that_other_processes_import_is_told_so(tmp_path: Path) -> None:
    """One line, of a kind that ``except TilemapError`` catches; the process can still be used."""
    script = tmp_path / "script.py"
    script.write_text(POOL)
    ran = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    refused, code = ran.stdout.splitlines()
    assert refused.startswith("refused: a script whose processes import it again must call tilemap")
    assert code == "0"
    assert ran.stderr == ""


def test_nothing_outlives_a_driver_that_is_killed() -> None:
    """Its workers see that it is gone."""
    driver = subprocess.Popen(
        [
            sys.executable, "-c",
            "import time\nfrom tilemap.cluster import ClusterSettings, connect\n"
            "with connect(ClusterSettings(workers=2, memory_limit=1 << 30)):\n"
            "    print('up', flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    assert driver.stdout.readline() == "up\n"
    workers = psutil.Process(driver.pid).children(recursive=True)
    assert len(workers) >= 2
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


def test_a_client_is_taken_as_scheduler(tmp_path: Path) -> None:
    """The run is done on its workers, it stays open, and nothing of the run stays there."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster) as client,
    ):
        result = api.segment(
            api.demo_scene(), model=api.DEMO_MODEL, core=256, out=tmp_path / "run", scheduler=client
        )
        assert list(result.record["by_worker"]) == list(client.scheduler_info()["workers"])
        figures = api.evaluate(
            result.directory, reference=result.landcover, scheduler=client, core=256
        )
        assert figures.record["run"]["tiles"] > 1
        assert client.submit(lambda: 5).result() == 5
        (left,) = client.run(lambda dask_worker: [*dask_worker.plugins]).values()
        ours = {name.removesuffix(f"-{client.id}") for name in left if "tilemap" in name}
        assert ours == {"tilemap-versions", "tilemap-role"}  # as long as the client is there
    with pytest.raises(ConfigError, match=r"must be running and wait, it is closed"):
        api.segment(
            api.demo_scene(), model=api.DEMO_MODEL, core=256, out=tmp_path / "no", scheduler=client
        )


@pytest.mark.parametrize("given", [5, b"tcp://127.0.0.1:8786", ["tcp://127.0.0.1:8786"]])
def test_what_is_neither_address_nor_client_is_refused(given: object) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match="must be an address or a dask Client, got"):
        ClusterSettings(scheduler=given)  # type: ignore[arg-type]


def test_an_active_client_that_is_not_used_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Workers are started all the same, unless it is given; whoever asked for workers knows."""
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        for settings, told in ((ClusterSettings(memory_limit=1 << 29), 1), (SETTINGS, 0)):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "tilemap"), connect(settings) as started:
                assert started.id != client.id
            assert len([r for r in caplog.records if "scheduler=client" in r.message]) == told


PINNED = """
import os, sys
from types import SimpleNamespace
from tilemap.worker import settle
for _ in range(2):  # a second run in the same process
    settle(SimpleNamespace(name=int(sys.argv[1]), nanny="tcp://127.0.0.1:1"), True, True)
print(*sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def test_no_two_workers_have_the_same_core() -> None:
    """Workers of two runs take free cores; one that finds none has all, and a core gets free."""
    count = usable_cores()

    def start(number: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PINNED, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def cores(process: subprocess.Popen[str]) -> list[int]:
        assert process.stdout is not None
        return [int(core) for core in process.stdout.readline().split()]

    # Other workers on this machine may have cores too.
    processes = [start(0) for _ in range(count + 1)]
    try:
        held = [cores(process) for process in processes]
        pinned = [core for got in held for core in got if len(got) == 1]
        assert len(pinned) == len(set(pinned))
        assert sorted(os.sched_getaffinity(0)) in held
        if pinned and count > 1:
            ended = processes[[len(got) for got in held].index(1)]
            ended.kill()
            ended.wait()
            deadline = time.monotonic() + 30
            while True:
                again = start(1)
                processes.append(again)
                if len(cores(again)) == 1:
                    break
                assert time.monotonic() < deadline
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_worker_of_the_own_process_takes_no_core() -> None:
    """The process of whoever calls keeps all of its cores, and no socket stays open in it."""

    def cores_of(dask_worker: Worker) -> set[int]:
        settle(dask_worker, True, True)
        return os.sched_getaffinity(0)

    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        assert list(client.run(cores_of).values()) == [os.sched_getaffinity(0)]
    held = psutil.Process().net_connections("unix")
    assert [one.laddr for one in held if "tilemap-core" in str(one.laddr)] == []
