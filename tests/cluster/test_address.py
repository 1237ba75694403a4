"""A scheduler that is there already: over TLS unless it is here, and there in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from tilemap.cluster import ClusterSettings, connect
from tilemap.cluster.address import check_encrypted, is_loopback, security_of
from tilemap.cluster.table import ClusterTable, TlsFiles, parse_table
from tilemap.errors import ConfigError, UnavailableError

from .machines import Authority


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_only_127_is_loopback(host: object, port: int) -> None:
    """Among IPv4 addresses, whatever the port and the protocol."""
    for scheme in ("", "tcp://", "tls://"):
        assert is_loopback(f"{scheme}{host}:{port}") == str(host).startswith("127.")


def test_names_and_other_protocols() -> None:
    """localhost by its addresses; a name that nobody knows is somewhere else."""
    assert is_loopback("tcp://localhost:1")
    assert is_loopback("tcp://[::1]:1")
    assert is_loopback("inproc://192.0.2.1/1/2")
    assert not is_loopback("tcp://[2001:db8::1]:1")
    assert not is_loopback("tcp://no.such.host.invalid:1")
    assert not is_loopback("")


def test_in_the_clear_only_here_or_when_it_is_wanted() -> None:
    """The error says what to write instead."""
    for address in ("tls://192.0.2.1:8786", "wss://192.0.2.1", "127.0.0.1:8786"):
        check_encrypted(address, insecure=False)
    check_encrypted("tcp://192.0.2.1:8786", insecure=True)
    for address in ("tcp://192.0.2.1:8786", "192.0.2.1:8786"):
        with pytest.raises(ConfigError, match=r"give tls://192\.0\.2\.1:8786 and"):
            check_encrypted(address, insecure=False)
    settings = ClusterSettings("tcp://192.0.2.1:8786")
    with pytest.raises(ConfigError, match="over TLS"), connect(settings):
        pass


def test_certificates_must_be_there(tmp_path: Path) -> None:
    """A file that is not is named, before anything is tried."""
    files = Authority(tmp_path / "authority").issue("client")
    security = security_of(TlsFiles(**files))
    assert security is not None
    assert security.require_encryption
    for role in ("client", "scheduler", "worker"):
        assert security.get_tls_config_for_role(role)["cert"] == files["cert"]
    with pytest.raises(ConfigError, match=r"nothing\.pem is not"):
        security_of(TlsFiles(**{**files, "key": str(tmp_path / "nothing.pem")}))
    assert security_of(None) is None


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where somebody listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done, kept = threading.Event(), []

        def accept() -> None:
            while not done.is_set():
                try:
                    kept.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()
        for connection in kept:
            connection.close()


@pytest.fixture
def closed() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_nobody_answers(
    scheme: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whether the port is closed or whoever listens is silent: exit 69, and not after minutes."""
    port = request.getfixturevalue(kind)
    files = Authority(tmp_path / "authority").issue("client")
    address = f"{scheme}://127.0.0.1:{port}"
    table = {"kind": "address", "scheduler": address, "timeout_s": 1.5}
    if scheme == "tls":
        table["tls"] = files
    settings = parse_table(table, tmp_path).settings()
    started = time.monotonic()
    says = rf"at {address} within 1\.5 s"
    with pytest.raises(UnavailableError, match=says) as caught, connect(settings):
        pass
    assert caught.value.exit_code == 69
    assert "\n" not in str(caught.value)
    # No claim about speed: that it ends at all, long before Dask's own 30 seconds a step.
    assert time.monotonic() - started < 30


def test_a_scheduler_without_workers() -> None:
    """It is waited for as long as for an answer."""
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        table = ClusterTable(kind="address", scheduler=cluster.scheduler_address, timeout_s=0.5)
        says = r"has none after 0\.5 s"
        with pytest.raises(UnavailableError, match=says), connect(table.settings()):
            pass
